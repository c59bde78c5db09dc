package probe

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"

	"orch/engine/api"
)

// status is a probe of type http: it is good if the status is the one wanted.
// The body is not looked at.
func (a *Asker) status(ctx context.Context, p *api.Probe) (string, error) {
	u, err := address(p.Url)
	if err != nil {
		return "", err
	}
	answer, err := a.get(ctx, u)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	want := cmp.Or(int(p.Status), http.StatusOK)
	if answer.StatusCode == want {
		return answer.said, nil
	}
	body, _ := io.ReadAll(io.LimitReader(answer.Body, 4*maxQuote)) // what there is of it serves
	return "", answer.refused(fmt.Sprintf(", want %d", want), body)
}

package probe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"orch/engine/api"
)

// prometheus is the answer to an instant query, see
// https://prometheus.io/docs/prometheus/latest/querying/api/
type prometheus struct {
	Status    string `json:"status"`
	ErrorType string `json:"errorType"`
	Error     string `json:"error"`
	Data      struct {
		Type   string          `json:"resultType"`
		Result json.RawMessage `json:"result"`
	} `json:"data"`
}

// metric is a probe of that type: a PromQL query at this moment, whose scalar,
// or every sample of its vector, must be within bounds.
func (a *Asker) metric(ctx context.Context, p *api.Probe) (string, error) {
	if !bounded(p) {
		return "", errBoundless
	}
	var said prometheus
	answer, err := a.query(ctx, p, "api/v1/query", url.Values{"query": {p.Query}}, &said)
	switch {
	case err != nil:
		return "", err
	case said.Error != "":
		return "", errors.New(then(answer.said, said.ErrorType+": "+said.Error))
	case answer.StatusCode != http.StatusOK || said.Status != "success":
		return "", answer.refused(", but not the answer of a Prometheus", nil)
	}
	all, err := said.samples()
	if err != nil {
		return "", fmt.Errorf("%s: %w", oneLine(p.Query, maxQuote), err)
	}
	return judge(p, all)
}

func (said *prometheus) samples() ([]series, error) {
	broken := errors.New("the answer is not one of a Prometheus")
	switch said.Data.Type {
	case "scalar":
		var value []any
		if json.Unmarshal(said.Data.Result, &value) != nil {
			return nil, broken
		}
		return []series{sample("scalar", value)}, nil
	case "vector":
		var vector []struct {
			Metric map[string]string `json:"metric"`
			Value  []any             `json:"value"` // none where it is a histogram
		}
		if json.Unmarshal(said.Data.Result, &vector) != nil {
			return nil, broken
		}
		var all []series
		for _, s := range vector {
			name := s.Metric["__name__"]
			delete(s.Metric, "__name__")
			all = append(all, sample(labelled(name, s.Metric), s.Value))
		}
		return all, nil
	}
	return nil, fmt.Errorf("the answer is a %s, want a scalar or an instant vector", said.Data.Type)
}

// sample reads [unix time, "number"].
func sample(name string, value []any) series {
	if len(value) == 2 {
		if text, ok := value[1].(string); ok {
			if v, err := strconv.ParseFloat(text, 64); err == nil {
				return series{name: name, value: v}
			}
		}
	}
	return series{name: name, wrong: "is no number"}
}

package probe

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"orch/engine/api"
)

// exec is a probe of that type: a command that is run in the first of the
// tasks where it can be, and is good if its exit code is 0. The tasks share
// the probe's time.
func (a *Asker) exec(ctx context.Context, p *api.Probe, tasks []string) (string, error) {
	command := oneLine(strings.Join(p.Command, " "), maxQuote)
	switch {
	case len(p.Command) == 0:
		return "", errors.New("it has no command")
	case a.Exec == nil:
		return "", errors.New("commands cannot be run in tasks here")
	case len(tasks) == 0:
		return "", fmt.Errorf("%s: no task of the new version is ready to run it", command)
	}
	var first error
	for _, task := range tasks {
		code, output, err := a.Exec(ctx, task, p.Command)
		reason := fmt.Sprintf("%s in task %s", command, task)
		switch {
		case err == nil && code == 0:
			return then(reason+": exit code 0", lastLine(output)), nil
		case err == nil:
			return "", errors.New(then(fmt.Sprintf("%s: exit code %d", reason, code), lastLine(output)))
		case ctx.Err() != nil:
			return "", errors.New(then(then(reason, over(ctx).Error()), lastLine(output)))
		case first == nil:
			first = errors.New(then(then(reason, oneLine(err.Error(), maxQuote)), lastLine(output)))
		}
	}
	if len(tasks) > 1 {
		first = fmt.Errorf("%w (none of %d tasks could run it)", first, len(tasks))
	}
	return "", first
}

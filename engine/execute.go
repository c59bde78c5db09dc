package engine

import (
	"context"
	"fmt"
	"time"
)

// answerWithin is what is left of a probe's time for its answer's way back.
const answerWithin = 500 * time.Millisecond

// execute runs a command in a task, wherever that is.
func (e *Engine) execute(ctx context.Context, task string, command []string) (exitCode int32, output string, err error) {
	t := e.store.View().Task(task)
	if t == nil {
		return -1, "", fmt.Errorf("there is no task %q any more", task)
	}
	timeout := time.Duration(0)
	if deadline, ok := ctx.Deadline(); ok {
		timeout = max(time.Until(deadline)-answerWithin, answerWithin)
	}
	return e.dispatcher.Exec(ctx, t.NodeId, task, command, timeout)
}

package session

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"orch/engine/api"
)

const (
	// atOnce is how many commands run on a node at a time; others wait.
	atOnce = 8
	// commandTimeout is that of requests without one.
	commandTimeout = 10 * time.Second
)

// commands run those that an engine asks for, beside the session's other
// traffic.
type commands struct {
	run     func(ctx context.Context, task string, command []string) (exit int, output string, err error)
	room    chan struct{} // holds one of each that runs
	results chan *api.ExecResult
}

// do runs a command and passes on what came of it, unless ctx, the session's,
// ends before.
func (c *commands) do(ctx context.Context, ask *api.ExecRequest) {
	select {
	case c.results <- c.result(ctx, ask):
	case <-ctx.Done():
	}
}

func (c *commands) result(ctx context.Context, ask *api.ExecRequest) *api.ExecResult {
	timeout := ask.Timeout.AsDuration()
	if timeout <= 0 {
		timeout = commandTimeout
	}
	failed := func(output, why string) *api.ExecResult {
		return &api.ExecResult{Id: ask.Id, ExitCode: -1, Output: text(output), Error: text(why)}
	}
	// It includes the wait for room: the engine doesn't wait longer.
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if !c.enter(ctx) {
		return failed("", fmt.Sprintf("cannot run %q in task %q: %d other commands ran on its node for %s", ask.Command, ask.TaskId, cap(c.room), timeout))
	}
	defer func() { <-c.room }()
	exit, output, err := c.run(ctx, ask.TaskId, ask.Command)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return failed(output, fmt.Sprintf("%q in task %q was killed: it did not end within %s", ask.Command, ask.TaskId, timeout))
	case err != nil:
		return failed(output, err.Error())
	}
	return &api.ExecResult{Id: ask.Id, ExitCode: int32(exit), Output: text(output)}
}

// enter waits for room; false: there was none for as long as ctx lasted.
func (c *commands) enter(ctx context.Context) bool {
	select {
	case c.room <- struct{}{}:
		return true
	default:
	}
	select {
	case c.room <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// text is what a message may carry of a command's bytes, and no longer than
// they are.
func text(output string) string { return strings.ToValidUTF8(output, "?") }

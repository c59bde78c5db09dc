package dispatch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"orch/engine/api"
)

const (
	// commandTimeout is that of commands without one.
	commandTimeout = 10 * time.Second
	// answerWithin more than a command's timeout its agent has answered, also
	// that it killed the command. One that is older than commands never does.
	answerWithin = 2 * time.Second
)

// Exec runs a command in a task, by their ids, and waits for its end. timeout
// is the command's, which is killed after it; 0: 10 s. output is the last
// 16 KiB of what it printed, with an error too, where it printed something
// before it was killed.
//
// It is an error if the command was not run to its end: there is no such
// task there, it could not be started, it took too long; or the node has no
// session, or none any more, or doesn't answer. In the last cases, and where
// ctx ends first, the command may have run. exitCode is -1 then. A command
// that failed is no error.
func (d *Dispatcher) Exec(ctx context.Context, node, task string, argv []string, timeout time.Duration) (exitCode int32, output string, err error) {
	if timeout <= 0 {
		timeout = commandTimeout
	}
	id, result := d.commands.begin(node)
	defer d.commands.forget(id)
	s := d.queue(node, &api.EngineMessage{Kind: &api.EngineMessage_Exec{Exec: &api.ExecRequest{
		Id: id, TaskId: task, Command: argv, Timeout: durationpb.New(timeout),
	}}})
	if s == nil {
		return -1, "", fmt.Errorf("node %s is not connected", d.name(node))
	}
	late := time.NewTimer(timeout + answerWithin)
	defer late.Stop()
	select {
	case r := <-result:
		return ended(r)
	case <-s.closed:
		select {
		case r := <-result: // it was its last word
			return ended(r)
		default:
		}
		return -1, "", fmt.Errorf("node %s is not connected any more, so it is unknown what came of the command", d.name(node))
	case <-late.C:
		return -1, "", fmt.Errorf("node %s did not answer within %s: its agent may be too old to run commands in tasks", d.name(node), timeout+answerWithin)
	case <-ctx.Done():
		return -1, "", fmt.Errorf("node %s has not said what came of the command: %w", d.name(node), ctx.Err())
	}
}

func ended(r *api.ExecResult) (int32, string, error) {
	if r.Error != "" {
		return -1, r.Output, errors.New(r.Error)
	}
	return r.ExitCode, r.Output, nil
}

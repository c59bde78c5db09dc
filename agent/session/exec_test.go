package session_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"orch/engine/api"
)

// Exec knows "say TEXT", "refuse" and "hang", which ends once it is freed or
// killed.
func (w *worker) Exec(ctx context.Context, task string, command []string) (int, string, error) {
	switch command[0] {
	case "say":
		return 3, command[1], nil
	case "refuse":
		return -1, "", fmt.Errorf("cannot run it in task %q: it is not on this node", task)
	}
	w.hanging <- task
	select {
	case <-w.free:
		return 0, "", nil
	case <-ctx.Done():
		return -1, "so far", ctx.Err()
	}
}

func (r *rig) ask(s *stream, id, task string, timeout time.Duration, command ...string) {
	r.Helper()
	r.send(s, &api.EngineMessage{Kind: &api.EngineMessage_Exec{Exec: &api.ExecRequest{
		Id: id, TaskId: task, Command: command, Timeout: durationpb.New(timeout),
	}}})
}

func (r *rig) result(s *stream) *api.ExecResult {
	r.Helper()
	for {
		switch k := r.receive(s).Kind.(type) {
		case *api.AgentMessage_Exec:
			return k.Exec
		case *api.AgentMessage_Heartbeat:
		default:
			r.Fatalf("something else came: %v", k)
		}
	}
}

func TestExec(t *testing.T) {
	r := begin(t)
	s := r.welcome(time.Hour)
	for _, c := range []struct {
		command []string
		timeout time.Duration
		want    *api.ExecResult
	}{
		{[]string{"say", "no\n"}, time.Minute, &api.ExecResult{ExitCode: 3, Output: "no\n"}},
		{[]string{"say", "no timeout"}, 0, &api.ExecResult{ExitCode: 3, Output: "no timeout"}},
		{[]string{"refuse"}, time.Minute, &api.ExecResult{ExitCode: -1, Error: `cannot run it in task "web.1#1": it is not on this node`}},
		{[]string{"hang"}, time.Millisecond, &api.ExecResult{ExitCode: -1, Output: "so far", Error: `["hang"] in task "web.1#1" was killed: it did not end within 1ms`}},
	} {
		r.ask(s, "x", "web.1#1", c.timeout, c.command...)
		if c.command[0] == "hang" {
			<-r.w.hanging
		}
		got := r.result(s)
		if got.Id != "x" || got.ExitCode != c.want.ExitCode || got.Output != c.want.Output || got.Error != c.want.Error {
			t.Errorf("%q: %v", c.command, got)
		}
	}
}

// Eight commands run at once and don't hold the session up; a ninth waits, but
// not for longer than it may take.
func TestExecIsBounded(t *testing.T) {
	r := begin(t)
	s := r.welcome(time.Hour)
	for i := range 8 {
		r.ask(s, fmt.Sprint(i), "t", time.Minute, "hang")
		<-r.w.hanging
	}
	r.ask(s, "late", "t", time.Millisecond, "say", "hello")
	if got := r.result(s); got.Id != "late" || got.Error != `cannot run ["say" "hello"] in task "t": 8 other commands ran on its node for 1ms` {
		t.Errorf("got %v", got)
	}
	r.ask(s, "patient", "t", time.Minute, "say", "hello")
	r.w.mu.Lock()
	r.w.pending = []*api.TaskStatus{{TaskId: "a"}}
	r.w.mu.Unlock()
	r.w.changed <- struct{}{}
	if m := r.receive(s); m.GetReport() == nil {
		t.Errorf("instead of a report came %v", m)
	}
	r.w.free <- struct{}{}
	ended := map[string]bool{r.result(s).Id: true, r.result(s).Id: true}
	if !ended["patient"] || len(ended) != 2 {
		t.Errorf("ended: %v", ended)
	}
}

// A command ends with its session: nobody would hear of it.
func TestExecEndsWithItsSession(t *testing.T) {
	r := begin(t)
	s := r.welcome(time.Hour)
	r.ask(s, "x", "t", time.Hour, "hang")
	<-r.w.hanging
	r.e.end <- errors.New("over")
	r.welcome(time.Hour) // it waits for what ran in the one before
}

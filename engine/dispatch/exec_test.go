package dispatch_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"orch/engine/api"
)

// came is what came of a command.
type came struct {
	exit   int32
	output string
	err    error
}

// exec runs a command in a task of the node; it is over once the channel has
// a value.
func (r *rig) exec(ctx context.Context, node string, argv ...string) <-chan came {
	c := make(chan came, 1)
	go func() {
		exit, output, err := r.d.Exec(ctx, node, "web/app.1#1", argv, time.Minute)
		c <- came{exit, output, err}
	}()
	return c
}

// asked takes the next command that the agent is to run.
func (a *agent) asked() *api.ExecRequest {
	a.Helper()
	for {
		switch k := a.next().Kind.(type) {
		case *api.EngineMessage_Exec:
			return k.Exec
		case *api.EngineMessage_Heartbeat:
		default:
			a.Fatalf("something else came: %v", k)
		}
	}
}

func (a *agent) answer(r *api.ExecResult) {
	a.Helper()
	a.send(&api.AgentMessage{Kind: &api.AgentMessage_Exec{Exec: r}})
}

func (r *rig) over(c <-chan came) came {
	r.Helper()
	select {
	case got := <-c:
		return got
	case <-time.After(10 * time.Second):
		r.Fatal("the command never ended")
		return came{}
	}
}

// Commands end in any order, and only their own node says how.
func TestExec(t *testing.T) {
	r := newRig(t)
	a, b := r.hello("n1"), r.hello("n2")
	a.assignments()
	b.assignments()
	first := r.exec(t.Context(), "n1", "check", "--all")
	one := a.asked()
	if one.TaskId != "web/app.1#1" || !slices.Equal(one.Command, []string{"check", "--all"}) || one.Timeout.AsDuration() != time.Minute {
		t.Errorf("asked for %v", one)
	}
	second, third := r.exec(t.Context(), "n1", "b"), r.exec(t.Context(), "n2", "c")
	two, three := a.asked(), b.asked()
	a.answer(&api.ExecResult{Id: three.Id, Output: "not the node's"})
	a.answer(&api.ExecResult{Id: "nobody's"})
	a.answer(&api.ExecResult{Id: two.Id, ExitCode: 3, Output: "no\n"})
	a.answer(&api.ExecResult{Id: two.Id, Output: "again"})
	if got := r.over(second); got != (came{3, "no\n", nil}) {
		t.Errorf("second: %v", got)
	}
	a.answer(&api.ExecResult{Id: one.Id, Output: "well\n"})
	if got := r.over(first); got != (came{0, "well\n", nil}) {
		t.Errorf("first: %v", got)
	}
	b.answer(&api.ExecResult{Id: three.Id, ExitCode: -1, Output: "so far", Error: "it did not end within 1m"})
	if got := r.over(third); got.exit != -1 || got.output != "so far" || got.err == nil || got.err.Error() != "it did not end within 1m" {
		t.Errorf("third: %v", got)
	}
}

func TestExecEndsWithoutItsNode(t *testing.T) {
	r := newRig(t)
	if got := r.over(r.exec(t.Context(), "n1", "x")); got.exit != -1 || got.err == nil || got.err.Error() != "node n1 is not connected" {
		t.Errorf("no session: %v", got)
	}
	a := r.hello("n1")
	a.assignments()
	c := r.exec(t.Context(), "n1", "x")
	a.asked()
	a.leave()
	if got := r.over(c); got.exit != -1 || got.err == nil || !strings.HasPrefix(got.err.Error(), "node n1 is not connected any more") {
		t.Errorf("the session ended: %v", got)
	}
}

func TestExecEndsWithItsContext(t *testing.T) {
	r := newRig(t)
	a := r.hello("n1")
	a.assignments()
	ctx, cancel := context.WithCancel(t.Context())
	c := r.exec(ctx, "n1", "x")
	ask := a.asked()
	cancel()
	if got := r.over(c); got.exit != -1 || !errors.Is(got.err, context.Canceled) {
		t.Errorf("got %v", got)
	}
	// An answer that nobody waits for harms nobody.
	a.answer(&api.ExecResult{Id: ask.Id})
	c = r.exec(t.Context(), "n1", "y")
	a.answer(&api.ExecResult{Id: a.asked().Id, ExitCode: 1})
	if got := r.over(c); got != (came{1, "", nil}) {
		t.Errorf("got %v", got)
	}
}

package rollout_test

import (
	"errors"
	"testing"
	"time"

	"orch/engine/api"
	"orch/engine/rollout"
	"orch/engine/script"
)

// strategy is one that a test makes up.
type strategy func(rollout.Question) (*api.Op, error)

func (s strategy) Next(q rollout.Question) (*api.Op, error) { return s(q) }

// TestBrokenStrategies: a strategy that fails stalls its rollout, with the
// reason, and the service keeps serving; an operator can abort it.
func TestBrokenStrategies(t *testing.T) {
	for want, s := range map[string]strategy{
		"line 3: no such zone":                       func(rollout.Question) (*api.Op, error) { return nil, errors.New("line 3: no such zone") },
		`the strategy asked for an unknown op "fly"`: func(rollout.Question) (*api.Op, error) { return &api.Op{Kind: "fly"}, nil },
	} {
		w := script.New()
		w.Strategy = s
		svc := &api.ServiceSpec{Name: "web", Mode: "replicated", Replicas: 2, Task: &api.TaskSpec{Runtime: "docker", Image: "v1"}}
		apply := func() {
			if _, err := w.Apply(&api.StackSpec{Name: "app", Services: []*api.ServiceSpec{svc}}, "run"); err != nil {
				t.Fatal(err)
			}
			if err := w.Advance(time.Minute); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.NodeUp(&api.Node{Id: "a"}); err != nil {
			t.Fatal(err)
		}
		apply()
		svc.Task = &api.TaskSpec{Runtime: "docker", Image: "v2"}
		apply()
		if r := w.State.View().Rollout("app/web~1"); r.Outcome != "needs_operator" || r.Reason != want {
			t.Errorf("outcome %q, reason %q, want %q", r.Outcome, r.Reason, want)
		}
		if n := len(w.Running()); n != 2 {
			t.Errorf("%d slots run", n)
		}
		if err := w.Signal("app/web", "abort"); err != nil {
			t.Fatal(err)
		}
		if err := w.Advance(time.Minute); err != nil {
			t.Fatal(err)
		}
		if r := w.State.View().Rollout("app/web~1"); r.Outcome != "rolled_back" {
			t.Errorf("aborted, and %q", r.Outcome)
		}
	}
}

package script_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"orch/engine/api"
	"orch/engine/script"
	"orch/engine/simulate"
	"orch/engine/state"
)

var errKilled = errors.New("the leader was killed")

// TestLeaderKilledAnywhere kills the leader after each entry of a rollout in
// turn, drops what it had still meant to propose, and lets a new one go on
// from the snapshot three seconds later: the end is the same.
func TestLeaderKilledAnywhere(t *testing.T) {
	second := durationpb.New(time.Second)
	for name, c := range map[string]struct {
		policy *api.RolloutPolicy
		image  string
		after  time.Duration
		broken int
		want   string // of the rollout
	}{
		"start-first":       {&api.RolloutPolicy{Monitor: second, Delay: second}, "v2", -1, 0, "succeeded"},
		"stop-first by two": {&api.RolloutPolicy{Order: "stop-first", Parallelism: "2", Monitor: second}, "v2", -1, 0, "succeeded"},
		"rolled back":       {&api.RolloutPolicy{Monitor: second}, "bad", -1, -1, "rolled_back"},
		"rolled back late":  {&api.RolloutPolicy{Monitor: durationpb.New(10 * time.Second), Order: "stop-first"}, "bad", 5 * time.Second, -1, "rolled_back"},
		"one may fail":      {&api.RolloutPolicy{Monitor: second, MaxFailureRatio: 0.2}, "bad", -1, 1, "succeeded"},
		"paused":            {&api.RolloutPolicy{OnFailure: "pause"}, "bad", -1, 2, "paused"},
	} {
		t.Run(name, func(t *testing.T) {
			run := func(killAt int) (end string, entries int) {
				w := script.New()
				step := func(err error) {
					t.Helper()
					if errors.Is(err, errKilled) {
						if err = w.KillLeader(); err == nil {
							w.Now = w.Now.Add(3 * time.Second)
						}
					}
					if err != nil {
						t.Fatalf("killed after %d: %v\n%s", killAt, err, w.Show())
					}
				}
				svc := &api.ServiceSpec{Name: "web", Mode: "replicated", Replicas: 5, Task: &api.TaskSpec{Runtime: "docker", Image: "v1"}, Update: c.policy}
				w.Break("bad", "it broke", c.after, c.broken)
				step(w.NodeUp(&api.Node{Id: "a"}))
				_, err := w.Apply(&api.StackSpec{Name: "app", Services: []*api.ServiceSpec{svc}}, "run")
				step(err)
				step(w.Advance(time.Minute))
				begun := w.Entries
				w.Committed = func(v state.View, _ []state.Delta) error {
					if err := rolledOnce(v); err != nil {
						return err
					}
					if w.Entries-begun == killAt {
						return errKilled
					}
					return nil
				}
				svc.Task = &api.TaskSpec{Runtime: "docker", Image: c.image}
				_, err = w.Apply(&api.StackSpec{Name: "app", Services: []*api.ServiceSpec{svc}}, "run")
				step(err)
				step(w.Advance(10 * time.Minute))
				step(w.Advance(10 * time.Minute))
				return ending(w), w.Entries - begun
			}
			want, entries := run(0)
			if !strings.Contains(want, c.want) {
				t.Fatalf("it came to\n%s", want)
			}
			for at := 1; at <= entries; at++ {
				if got, _ := run(at); got != want {
					t.Fatalf("killed after entry %d of %d, it came to\n%swithout that to\n%s", at, entries, got, want)
				}
			}
		})
	}
}

// rolledOnce: no slot was replaced twice in one phase of a rollout.
func rolledOnce(v state.View) error {
	for _, r := range v.RolloutsOf("app/web") {
		replaced := map[string]bool{}
		for _, op := range r.Journal {
			if op.Kind == "fail" {
				clear(replaced)
			}
			for _, s := range op.Slots {
				if op.Kind == "replace" && replaced[s] {
					return fmt.Errorf("%s was replaced twice", s)
				}
				replaced[s] = replaced[s] || op.Kind == "replace"
			}
		}
	}
	return nil
}

// ending is what the cluster came to, without times and attempts.
func ending(w *simulate.World) string {
	v := w.State.View()
	var out strings.Builder
	svc := v.Service("app/web")
	r := v.Rollout(svc.RolloutId)
	fmt.Fprintf(&out, "%s, %s, service at %s, stable %s\n", r.Outcome, r.Phase, svc.Spec.Task.Image, svc.StableSpec.Task.Image)
	for _, s := range v.SlotsOf(svc.Id) {
		fmt.Fprintf(&out, "%s wants %s:", s.Id, v.Version(svc.Id, s.Version).Task.Image)
		for _, t := range v.TasksOf(svc.Id) {
			if t.SlotId == s.Id && !state.Ended(t.Status.State) {
				fmt.Fprintf(&out, " %s %s", simulate.Image(v, t), simulate.StateName(t.Status.State))
			}
		}
		out.WriteString("\n")
	}
	return out.String()
}

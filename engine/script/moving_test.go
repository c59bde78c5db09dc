package script_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"orch/engine/api"
	"orch/engine/script"
	"orch/engine/state"
)

// TestLeaderKilledWhileMoving kills the leader after each entry of a drain
// and of a rebalancing in turn: no more slots than ever lack a ready task, and
// the end is the same.
func TestLeaderKilledWhileMoving(t *testing.T) {
	for _, order := range []string{"start-first", "stop-first"} {
		t.Run(order, func(t *testing.T) {
			most := 0
			if order == "stop-first" {
				most = 2
			}
			run := func(killAt int) (end string, entries int) {
				w := script.New()
				step := func(err error) {
					t.Helper()
					if errors.Is(err, errKilled) {
						if err = w.KillLeader(); err == nil {
							err = w.Advance(3 * time.Second)
						}
					}
					if err != nil {
						t.Fatalf("killed after %d: %v\n%s", killAt, err, w.Show())
					}
				}
				for _, id := range []string{"a", "b", "c"} {
					step(w.NodeUp(&api.Node{Id: id}))
				}
				svc := &api.ServiceSpec{Name: "web", Mode: "replicated", Replicas: 6, Task: &api.TaskSpec{Runtime: "docker", Image: "v1"},
					Update: &api.RolloutPolicy{Order: order, Parallelism: "2"}}
				_, err := w.Apply(&api.StackSpec{Name: "app", Services: []*api.ServiceSpec{svc}}, "run")
				step(err)
				step(w.Advance(time.Second))
				begun := w.Entries
				w.Committed = func(v state.View, _ []state.Delta) error {
					ready := map[string]bool{}
					for _, x := range v.TasksOf("app/web") {
						if x.Status.Ready && x.Status.State == api.TaskState_TASK_STATE_RUNNING {
							ready[x.SlotId] = true
						}
					}
					if out := 6 - len(ready); out > most {
						return fmt.Errorf("%d slots lack a ready task", out)
					}
					if w.Entries-begun == killAt {
						return errKilled
					}
					return nil
				}
				step(w.NodeSet("a", &api.SetNode{Availability: "drain"}))
				step(w.Advance(time.Minute))
				step(w.NodeSet("a", &api.SetNode{Availability: "active"}))
				_, err = w.Rebalance()
				step(err)
				step(w.Advance(time.Minute))
				on := map[string]int{}
				for _, x := range w.State.View().TasksOf("app/web") {
					if !state.Ended(x.Status.State) {
						on[x.NodeId]++
					}
				}
				return fmt.Sprint(on), w.Entries - begun
			}
			want, entries := run(0)
			if want != "map[a:2 b:2 c:2]" {
				t.Fatalf("it came to %s", want)
			}
			for at := 1; at <= entries; at++ {
				if got, _ := run(at); got != want {
					t.Fatalf("killed after entry %d of %d, it came to %s, without that to %s", at, entries, got, want)
				}
			}
		})
	}
}

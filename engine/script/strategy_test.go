package script_test

import (
	"encoding/json"
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
	"orch/playbooks"
)

// TestStrategiesSurviveAnyLeader kills the leader at each op boundary of each
// of the library's strategies, once to go on by replay, once to begin the
// strategy from its top: the end is always the same, and min_available,
// max_surge and one task a slot and version hold on the way.
func TestStrategiesSurviveAnyLeader(t *testing.T) {
	second := durationpb.New(time.Second)
	strategies := &playbooks.Strategies{}
	for name, params := range map[string]map[string]any{
		"rolling":            {"parallelism": 2, "monitor": "1s", "delay": "1s"},
		"canary":             {"count": 2, "bake": "2s", "promote": true, "parallelism": 2, "monitor": "1s"},
		"blue_green":         {"bake": "2s", "promote": true},
		"progressive":        {"weights": []int{25, 50, 100}, "hold": "1m", "monitor": "1s"},
		"one_zone_at_a_time": {"delay": "1s", "monitor": "1s"},
		"all_at_once":        {"monitor": "1s"},
	} {
		for _, mode := range []string{"replicated", "global"} {
			for _, image := range []string{"v2", "bad"} {
				t.Run(fmt.Sprintf("%s %s %s", name, mode, image), func(t *testing.T) {
					text, err := json.Marshal(params)
					if err != nil {
						t.Fatal(err)
					}
					policy := &api.RolloutPolicy{Strategy: "@orch//rollout.star:" + name, ParamsJson: string(text), MinAvailable: "4", Monitor: second}
					run := func(killAt int, fromTop bool) (end string, boundaries int) {
						w := simulate.New()
						w.Strategy, w.Prober = strategies, simulate.Good{}
						step := func(err error) {
							t.Helper()
							if errors.Is(err, errKilled) {
								if err = w.KillLeader(); err == nil && fromTop {
									if err = w.Signal("app/web", "pause"); err == nil {
										err = w.Signal("app/web", "retry")
									}
								}
							}
							if err != nil {
								t.Fatalf("killed at %d: %v\n%s", killAt, err, w.Show())
							}
						}
						w.Break("bad", "it broke", 500*time.Millisecond, -1)
						for i := range 5 {
							step(w.NodeUp(&api.Node{Id: fmt.Sprintf("n%d", i), Labels: map[string]string{"zone": fmt.Sprint(i % 2)}}))
						}
						svc := &api.ServiceSpec{Name: "web", Mode: mode, Task: &api.TaskSpec{Runtime: "docker", Image: "v1"}, Update: policy}
						if mode == "replicated" {
							svc.Replicas = 5
						}
						stack := &api.StackSpec{Name: "app", Services: []*api.ServiceSpec{svc}}
						_, err := w.Apply(stack, "run")
						step(err)
						step(w.Advance(time.Minute))
						w.Committed = func(v state.View, deltas []state.Delta) error {
							if err := script.Bounds(v, deltas); err != nil {
								return err
							}
							for _, d := range deltas {
								after, _ := d.After.(*api.Rollout)
								before, _ := d.Before.(*api.Rollout)
								if after == nil || len(after.Journal) <= len(before.GetJournal()) && after.GetPhase() == before.GetPhase() {
									continue
								}
								boundaries++
								if boundaries == killAt && (!fromTop || after.Outcome == "" && after.Phase == "forward") {
									return errKilled
								}
							}
							return nil
						}
						svc.Task = &api.TaskSpec{Runtime: "docker", Image: image}
						_, err = w.Apply(stack, "run")
						step(err)
						for range 20 {
							step(w.Advance(time.Minute))
							_ = w.Signal("app/web", "promote") // where it waits for that
						}
						return versions(w), boundaries
					}
					want, boundaries := run(0, false)
					outcome := map[string]string{"v2": "succeeded", "bad": "rolled_back"}[image]
					if !strings.HasPrefix(want, outcome) {
						t.Fatalf("it came to\n%s", want)
					}
					for at := 1; at <= boundaries; at++ {
						for _, fromTop := range []bool{false, true} {
							if got, _ := run(at, fromTop); got != want {
								t.Fatalf("killed at %d of %d, from the top: %v, it came to\n%swithout that to\n%s", at, boundaries, fromTop, got, want)
							}
						}
					}
				})
			}
		}
	}
}

// versions is what a service came to: its rollout's outcome, and how many
// tasks of each version serve. Which slots have which numbers doesn't matter.
func versions(w *simulate.World) string {
	v := w.State.View()
	svc := v.Service("app/web")
	n := map[string]int{}
	for _, t := range v.TasksOf(svc.Id) {
		if !state.Ended(t.Status.State) {
			n[fmt.Sprintf("%s %s ready=%t", simulate.Image(v, t), simulate.StateName(t.Status.State), t.Status.Ready)]++
		}
	}
	surge := 0
	for _, s := range v.SlotsOf(svc.Id) {
		if s.Group != "" && !s.Removed {
			surge++
		}
	}
	return fmt.Sprintf("%s, service at %s, %v, %d left of a surge\n", v.Rollout(svc.RolloutId).Outcome, svc.Spec.Task.Image, n, surge)
}

package script_test

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	"orch/engine/api"
	"orch/engine/rollout"
	"orch/engine/script"
	"orch/engine/state"
)

// TestBoundsHoldAgainstAnyScript: whatever ops a strategy asks for, whatever
// breaks meanwhile, and wherever the leader is killed, the service keeps its
// min_available and max_surge, and an operator can always take it back.
func TestBoundsHoldAgainstAnyScript(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := script.New()
		mode := rapid.SampledFrom([]string{"replicated", "replicated", "global"}).Draw(t, "mode")
		nodes := rapid.IntRange(1, 4).Draw(t, "nodes")
		svc := &api.ServiceSpec{Name: "web", Mode: mode, Task: &api.TaskSpec{Runtime: "docker", Image: "v1"}, Update: &api.RolloutPolicy{
			Order:        rapid.SampledFrom([]string{"start-first", "stop-first"}).Draw(t, "order"),
			MinAvailable: rapid.SampledFrom([]string{"", "0", "1", "2", "50%", "75%", "100%"}).Draw(t, "min_available"),
			MaxSurge:     rapid.SampledFrom([]string{"", "0", "1", "2", "50%"}).Draw(t, "max_surge"),
			OnFailure:    rapid.SampledFrom([]string{"rollback", "pause"}).Draw(t, "on_failure"),
		}}
		n := nodes
		if mode == "replicated" {
			n = rapid.IntRange(1, 5).Draw(t, "replicas")
			svc.Replicas = int32(n)
		}
		var ops []*api.Op
		for range rapid.IntRange(0, 8).Draw(t, "ops") {
			ops = append(ops, drawOp(t, n))
		}
		w.Strategy = scripted(ops)
		check := func(err error) {
			if err != nil {
				t.Fatalf("%v\n%s", err, w.Show())
			}
		}
		for i := range nodes {
			check(w.NodeUp(&api.Node{Id: fmt.Sprintf("n%d", i)}))
		}
		stack := &api.StackSpec{Name: "app", Services: []*api.ServiceSpec{svc}, OnFailure: "rollback"}
		_, err := w.Apply(stack, "run")
		check(err)
		check(w.Advance(time.Minute))
		w.Committed = func(v state.View, deltas []state.Delta) error { return script.Bounds(v, deltas) }
		w.Break("v2", "it broke", time.Duration(rapid.IntRange(-1, 5).Draw(t, "after"))*time.Second, rapid.SampledFrom([]int{0, 1, 2, -1}).Draw(t, "broken"))
		svc.Task = &api.TaskSpec{Runtime: "docker", Image: "v2"}
		_, err = w.Apply(stack, "run")
		check(err)
		for range rapid.IntRange(1, 6).Draw(t, "events") {
			switch rapid.IntRange(0, 3).Draw(t, "event") {
			case 0:
				check(w.KillLeader())
			case 1:
				if tasks := w.State.View().Tasks(); len(tasks) > 0 {
					w.End(rapid.SampledFrom(tasks).Draw(t, "task").Id, "broke")
				}
			case 2:
				_ = w.Signal("app/web", rapid.SampledFrom([]string{"pause", "resume", "promote", "retry"}).Draw(t, "signal"))
			}
			check(w.Advance(time.Duration(rapid.IntRange(0, 20).Draw(t, "seconds")) * time.Second))
		}
		_ = w.Signal("app/web", "abort") // refused where it is over
		w.Mend("v2")
		check(w.Advance(48 * time.Hour))
		v := w.State.View()
		if r := v.Rollout("app/web~1"); r.Outcome == "" {
			t.Fatalf("it never ends: %s\n%s", r, w.Show())
		}
		if surge := v.SlotsOf("app/web"); v.Release("app", 2).Outcome != "" && v.Release("app", 2).Outcome != "paused" {
			for _, s := range surge {
				if s.Group != "" && !s.Removed {
					t.Fatalf("%s is left of a surge\n%s", s.Id, w.Show())
				}
			}
		}
	})
}

// scripted asks for a list of ops, and succeeds.
type scripted []*api.Op

func (s scripted) Next(q rollout.Question) (*api.Op, error) {
	if n := len(q.Journal) - 1; n < len(s) {
		return s[n], nil
	}
	return &api.Op{Kind: "succeed"}, nil
}

func drawOp(t *rapid.T, n int) *api.Op {
	slots := func() (ids []string) {
		for i := range n + 1 {
			if rapid.Bool().Draw(t, "slot") {
				ids = append(ids, fmt.Sprintf("app/web.%d", i+1), fmt.Sprintf("app/web.n%d", i))
			}
		}
		return ids
	}
	group := rapid.SampledFrom([]string{"canary", "green"}).Draw(t, "group")
	short := durationpb.New(time.Duration(rapid.IntRange(0, 9).Draw(t, "for")) * time.Second)
	switch kind := rapid.SampledFrom([]string{"replace", "replace", "surge", "surge", "adopt", "drop", "wait_healthy", "wait_healthy", "pause", "wait_signal", "event", "fail"}).Draw(t, "kind"); kind {
	case "replace":
		return &api.Op{Kind: kind, Slots: slots(), Order: rapid.SampledFrom([]string{"start-first", "stop-first"}).Draw(t, "order")}
	case "surge":
		return &api.Op{Kind: kind, Group: group, Count: rapid.Int32Range(0, 6).Draw(t, "count")}
	case "wait_healthy":
		if rapid.Bool().Draw(t, "named") {
			return &api.Op{Kind: kind, Group: group, Duration: short}
		}
		return &api.Op{Kind: kind, Slots: slots(), Duration: short}
	case "wait_signal":
		return &api.Op{Kind: kind, Text: "promote", Timeout: short}
	case "pause":
		return &api.Op{Kind: kind, Duration: short}
	case "fail":
		return &api.Op{Kind: kind, Policy: rapid.SampledFrom([]string{"rollback", "pause", "continue"}).Draw(t, "policy"), Reason: "no"}
	default:
		return &api.Op{Kind: kind, Group: group, Text: "hello"}
	}
}

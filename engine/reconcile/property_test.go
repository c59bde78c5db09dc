package reconcile_test

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	"orch/engine/api"
	"orch/engine/reconcile"
	"orch/engine/script"
	"orch/engine/simulate"
	"orch/engine/state"
)

// TestComesToRest: whatever happens, at every instant the engine comes to
// rest, never runs two tasks of a slot but in a start-first replacement, and
// in the end nothing waits without a reason.
func TestComesToRest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := script.New()
		w.Break("bad", "it broke", -1, -1)
		w.Committed = func(v state.View, _ []state.Delta) error { return twoOfASlot(v) }
		check := func(err error) {
			if err != nil {
				t.Fatalf("%v\n%s", err, w.Show())
			}
		}
		for range rapid.IntRange(1, 25).Draw(t, "events") {
			check(script.RandomEvent(t, w))
			if rapid.Bool().Draw(t, "settle") {
				check(w.Advance(time.Duration(rapid.IntRange(0, 20).Draw(t, "seconds")) * time.Second))
			}
		}
		check(w.Settle())
		if p := w.Plan(); len(p.Changes) > 0 {
			t.Fatalf("at rest, and planned %v", p.Changes)
		}
		v := w.State.View()
		for _, x := range v.Tasks() {
			if x.Status.State == api.TaskState_TASK_STATE_PENDING && x.Wait.GetReason() == "" {
				t.Fatalf("%s waits without a reason", x.Id)
			}
			if x.Wait != nil && x.Wait.Since == nil {
				t.Fatalf("%s waits without a since", x.Id)
			}
		}
		explained(t, w)
	})
}

// twoOfASlot finds slots with more tasks than they may have.
func twoOfASlot(v state.View) error {
	for _, svc := range v.Services() {
		n, jobs := map[string]int{}, map[string]int{}
		for _, x := range v.TasksOf(svc.Id) {
			if !state.Ended(x.Status.State) && !x.Hold {
				n[x.SlotId]++
				if x.Run > 0 {
					jobs[x.SlotId]++
				}
			}
			if x.Desired == api.TaskDesired_TASK_DESIRED_UNSPECIFIED {
				return fmt.Errorf("%s has no desired state", x.Id)
			}
		}
		for slot, n := range n {
			if n > 2 || jobs[slot] > 1 {
				return fmt.Errorf("%s has %d tasks", slot, n)
			}
		}
	}
	return nil
}

// explained: a slot without a live task has given up or has nothing to do.
func explained(t *rapid.T, w *simulate.World) {
	v := w.State.View()
	if v.Stack("app").GetStopped() {
		return
	}
	for _, svc := range v.Services() {
		if svc.Removed || svc.Spec.Mode == "job" {
			continue
		}
		for _, slot := range v.SlotsOf(svc.Id) {
			if slot.Removed {
				continue
			}
			var newest *api.Task
			live := false
			var all []*api.Task
			for _, x := range v.TasksOf(svc.Id) {
				if x.SlotId == slot.Id {
					live = live || !state.Ended(x.Status.State)
					all = append(all, x)
					if newest == nil || x.Attempt > newest.Attempt {
						newest = x
					}
				}
			}
			policy := svc.Spec.Restart
			over := newest.GetStatus().GetState() == api.TaskState_TASK_STATE_COMPLETE && policy.Condition != "any" ||
				newest.GetStatus().GetState() == api.TaskState_TASK_STATE_FAILED && policy.Condition == "none" ||
				policy.MaxAttempts > 0 && newest != nil && len(all) > int(policy.MaxAttempts)
			if !live && !over {
				t.Fatalf("slot %s has no task, its newest is %v", slot.Id, newest)
			}
		}
	}
}

// TestStopFirstAvailability: no more slots of a service are without a ready
// task than the rollout's parallelism, when nothing fails.
func TestStopFirstAvailability(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := script.New()
		if err := w.NodeUp(&api.Node{Id: "a"}); err != nil {
			t.Fatal(err)
		}
		n := rapid.IntRange(1, 7).Draw(t, "replicas")
		size := rapid.IntRange(1, 3).Draw(t, "parallelism")
		svc := &api.ServiceSpec{Name: "web", Mode: "replicated", Replicas: int32(n), Task: &api.TaskSpec{Runtime: "docker", Image: "v1"},
			Update: &api.RolloutPolicy{Order: rapid.SampledFrom([]string{"stop-first", "start-first"}).Draw(t, "order"), Parallelism: fmt.Sprint(size), Monitor: script.Seconds.Draw(t, "monitor"), Delay: script.Seconds.Draw(t, "delay")}}
		apply := func() {
			if _, err := w.Apply(&api.StackSpec{Name: "app", Services: []*api.ServiceSpec{svc}}, "run"); err != nil {
				t.Fatal(err)
			}
			if err := w.Advance(time.Hour); err != nil {
				t.Fatal(err)
			}
		}
		apply()
		w.Committed = func(v state.View, _ []state.Delta) error {
			ready, live := map[string]bool{}, map[string]int{}
			for _, x := range v.TasksOf("app/web") {
				if x.Status.Ready && x.Status.State == api.TaskState_TASK_STATE_RUNNING {
					ready[x.SlotId] = true
				}
				if !state.Ended(x.Status.State) && !x.Hold {
					live[x.SlotId]++
				}
			}
			least := n - size
			if svc.Update.Order == "start-first" {
				least = n
			}
			if len(ready) < least {
				return fmt.Errorf("%d of %d are ready, at least %d must be", len(ready), n, least)
			}
			for slot, k := range live {
				if k > 2 || k > 1 && svc.Update.Order == "stop-first" {
					return fmt.Errorf("%s has %d tasks", slot, k)
				}
			}
			return nil
		}
		svc.Task = &api.TaskSpec{Runtime: "docker", Image: "v2"}
		apply()
		if r := w.State.View().Rollout("app/web~1"); r.GetOutcome() != "succeeded" {
			t.Fatalf("the rollout came to %q", r.GetOutcome())
		}
	})
}

// TestMovesKeepAvailability: whatever nodes are drained, labelled or balanced,
// a service that runs twice while it moves never lacks a ready task, and one
// that may not is without no more of them than an update takes at once. In
// the end nothing is where it may not be, unless it says why.
func TestMovesKeepAvailability(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := script.New()
		nodes := []string{"a", "b", "c", "d"}
		for _, id := range nodes {
			if err := w.NodeUp(&api.Node{Id: id, Labels: map[string]string{"disk": "ssd"}}); err != nil {
				t.Fatal(err)
			}
		}
		n, size := rapid.IntRange(1, 7).Draw(t, "replicas"), rapid.IntRange(1, 3).Draw(t, "parallelism")
		order := rapid.SampledFrom([]string{"stop-first", "start-first"}).Draw(t, "order")
		svc := &api.ServiceSpec{Name: "web", Mode: "replicated", Replicas: int32(n), Task: &api.TaskSpec{Runtime: "docker", Image: "v1"},
			Update:    &api.RolloutPolicy{Order: order, Parallelism: fmt.Sprint(size), Monitor: script.Seconds.Draw(t, "monitor")},
			Placement: &api.Placement{Constraints: []string{"node.labels.disk == ssd"}, MaxPerNode: rapid.SampledFrom([]int32{0, 3}).Draw(t, "most")}}
		step := func(err error) {
			if err != nil {
				t.Fatalf("%v\n%s", err, w.Show())
			}
		}
		apply := func() {
			_, err := w.Apply(&api.StackSpec{Name: "app", Services: []*api.ServiceSpec{svc}}, "run")
			step(err)
		}
		apply()
		step(w.Settle())
		most := 0
		if order == "stop-first" {
			most = size
		}
		w.Committed = func(v state.View, _ []state.Delta) error {
			ready := map[string]bool{}
			for _, x := range v.TasksOf("app/web") {
				if x.Status.Ready && x.Status.State == api.TaskState_TASK_STATE_RUNNING {
					ready[x.SlotId] = true
				}
			}
			if out := n - len(ready); out > most {
				return fmt.Errorf("%d slots are without a ready task", out)
			}
			return nil
		}
		if svc.Placement.MaxPerNode == 0 && rapid.Bool().Draw(t, "in a rollout") {
			svc.Task = &api.TaskSpec{Runtime: "docker", Image: "v2"}
			nodes = nodes[1:] // there is always somewhere to go
			apply()
		}
		for range rapid.IntRange(1, 12).Draw(t, "events") {
			id := rapid.SampledFrom(nodes).Draw(t, "node")
			switch rapid.IntRange(0, 3).Draw(t, "event") {
			case 0, 1:
				step(w.NodeSet(id, &api.SetNode{Availability: rapid.SampledFrom([]string{"active", "drain", "pause"}).Draw(t, "availability")}))
			case 2:
				step(w.NodeSet(id, &api.SetNode{Labels: map[string]string{"disk": rapid.SampledFrom([]string{"", "ssd"}).Draw(t, "disk")}}))
			case 3:
				_, err := w.Rebalance()
				step(err)
			}
			if rapid.Bool().Draw(t, "settle") {
				step(w.Advance(time.Duration(rapid.IntRange(0, 9).Draw(t, "seconds")) * time.Second))
			}
		}
		step(w.Advance(time.Hour))
		v := w.State.View()
		for _, x := range v.TasksOf("app/web") {
			node := v.Node(x.NodeId)
			if state.Ended(x.Status.State) || node == nil || node.Availability != "drain" && node.Labels["disk"] != "" {
				continue
			}
			next := v.Task(state.TaskID(x.SlotId, x.Attempt+1))
			if x.Wait.GetReason() == "" && next.GetWait().GetReason() == "" {
				t.Fatalf("%s stays on %s, and says nothing\n%s", x.Id, node.Name, w.Show())
			}
		}
	})
}

func TestBackoff(t *testing.T) {
	p := &api.RestartPolicy{Delay: durationpb.New(2 * time.Second), MaxDelay: durationpb.New(15 * time.Second)}
	for failures, want := range map[uint32]time.Duration{1: 2 * time.Second, 2: 4 * time.Second, 3: 8 * time.Second, 4: 15 * time.Second, 4e9: 15 * time.Second} {
		if got := reconcile.Backoff(p, failures); got != want {
			t.Errorf("%d failures: %s, want %s", failures, got, want)
		}
	}
	if got := reconcile.Backoff(nil, 7); got != time.Minute {
		t.Errorf("without a policy: %s", got)
	}
	if got := reconcile.Backoff(&api.RestartPolicy{Delay: durationpb.New(0)}, 1e9); got != 0 {
		t.Errorf("without a delay: %s", got)
	}
}

func BenchmarkService10000Slots(b *testing.B) {
	w := script.New()
	for i := range 100 {
		if err := w.NodeUp(&api.Node{Id: fmt.Sprintf("n%03d", i), Facts: &api.NodeFacts{CpusMilli: 1, Memory: 1}}); err != nil {
			b.Fatal(err)
		}
	}
	svc := &api.ServiceSpec{Name: "web", Mode: "replicated", Replicas: 10_000, Task: &api.TaskSpec{Runtime: "docker", Image: "v1"},
		Placement: &api.Placement{Constraints: []string{"node.role == agent"}}}
	if _, err := w.Apply(&api.StackSpec{Name: "app", Services: []*api.ServiceSpec{svc}}, "run"); err != nil {
		b.Fatal(err)
	}
	b.Run("placing", func(b *testing.B) {
		for b.Loop() {
			w.Plan()
		}
	})
	if err := w.Settle(); err != nil {
		b.Fatal(err)
	}
	b.Run("at rest", func(b *testing.B) {
		for b.Loop() {
			reconcile.Service(w.State.View(), w.State.View().Service("app/web"), state.Everywhere, w.Now)
		}
	})
	svc.Task = &api.TaskSpec{Runtime: "docker", Image: "v2"}
	if _, err := w.Apply(&api.StackSpec{Name: "app", Services: []*api.ServiceSpec{svc}}, "run"); err != nil {
		b.Fatal(err)
	}
	b.Run("rollout step", func(b *testing.B) {
		for b.Loop() {
			w.Plan()
		}
	})
}

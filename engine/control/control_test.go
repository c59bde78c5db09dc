package control_test

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"orch/engine/api"
	"orch/engine/control"
	"orch/engine/rollout"
	"orch/engine/script"
	"orch/engine/state"
)

// TestNothingIsMissed: looking only at what changed comes to the same rest
// as looking at everything: whatever happens, once the loop has nothing left
// to look at, a look at all services finds nothing to do.
func TestNothingIsMissed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := script.New()
		w.Break("bad", "it broke", -1, -1)
		d := control.NewDirty(w.State.View())
		w.Choose = func(_ state.View, now time.Time) []string { return d.Take(now) }
		w.NextWake = d.Next
		w.Planned = d.Note
		w.Committed = func(v state.View, deltas []state.Delta) error {
			d.Changed(v, []state.Change{{Deltas: deltas}})
			return nil
		}
		for range rapid.IntRange(1, 25).Draw(t, "events") {
			if err := script.RandomEvent(t, w); err != nil {
				t.Fatal(err)
			}
			if err := w.Advance(time.Duration(rapid.IntRange(0, 20).Draw(t, "seconds")) * time.Second); err != nil {
				t.Fatalf("%v: %v\n%s", err, w.Plan().Changes, w.Show())
			}
			if p := w.Plan(); len(p.Changes) > 0 {
				t.Fatalf("missed: %v\n%s", p.Changes, w.Show())
			}
		}
	})
}

// TestPlanChangesNothing: a plan is a value; making it touches no row, and
// the same view gives the same plan.
func TestPlanChangesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := script.New()
		for range rapid.IntRange(1, 15).Draw(t, "events") {
			if err := script.RandomEvent(t, w); err != nil {
				t.Fatal(err)
			}
			rows := everything(w.State.View())
			copies := make([]proto.Message, len(rows))
			for i, r := range rows {
				copies[i] = proto.Clone(r)
			}
			a, b := w.Plan(), w.Plan()
			if len(a.Changes) != len(b.Changes) {
				t.Fatal("two plans of one view")
			}
			for i := range a.Changes {
				if !proto.Equal(a.Changes[i], b.Changes[i]) {
					t.Fatalf("two plans of one view:\n%v\n%v", a.Changes[i], b.Changes[i])
				}
			}
			for i, r := range rows {
				if !proto.Equal(r, copies[i]) {
					t.Fatalf("planning changed %v", r)
				}
			}
			if rapid.Bool().Draw(t, "settle") {
				if err := w.Advance(time.Second); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

func everything(v state.View) []proto.Message {
	var all []proto.Message
	for _, n := range v.Nodes() {
		all = append(all, n)
	}
	for _, s := range v.Services() {
		all = append(all, s)
		for _, x := range v.SlotsOf(s.Id) {
			all = append(all, x)
		}
		for _, x := range v.RolloutsOf(s.Id) {
			all = append(all, x)
		}
	}
	for _, x := range v.Tasks() {
		all = append(all, x)
	}
	return all
}

// TestEntriesAreBounded: 5,000 tasks go into entries of at most 2,000 rows,
// and are placed by them.
func TestEntriesAreBounded(t *testing.T) {
	w := script.New()
	if err := w.NodeUp(&api.Node{Id: "a"}); err != nil {
		t.Fatal(err)
	}
	svc := &api.ServiceSpec{Name: "web", Mode: "replicated", Replicas: 5000, Task: &api.TaskSpec{Runtime: "docker", Image: "v1"}}
	if _, err := w.Apply(&api.StackSpec{Name: "app", Services: []*api.ServiceSpec{svc}}, "run"); err != nil {
		t.Fatal(err)
	}
	p := control.Plan(w.State.View(), []string{"app/web", "app/none"}, control.World{World: rollout.World{Strategy: script.Rolling{}}, Followed: state.Everywhere}, w.Now)
	for _, c := range p.Changes {
		if n := len(c.PutSlots) + len(c.Create); n > 2000 {
			t.Errorf("an entry of %d rows", n)
		}
	}
	if err := w.Settle(); err != nil {
		t.Fatal(err)
	}
	ready := 0
	for _, x := range w.State.View().Tasks() {
		if x.Status.Ready {
			ready++
		}
	}
	if ready != 5000 {
		t.Errorf("%d are ready", ready)
	}
}

func BenchmarkPlan10000TasksOn1000Nodes(b *testing.B) {
	w := script.New()
	for i := range 1000 {
		if err := w.NodeUp(&api.Node{Id: fmt.Sprintf("n%04d", i)}); err != nil {
			b.Fatal(err)
		}
	}
	svc := &api.ServiceSpec{Name: "web", Mode: "replicated", Replicas: 10_000, Task: &api.TaskSpec{Runtime: "docker", Image: "v1"}}
	if _, err := w.Apply(&api.StackSpec{Name: "app", Services: []*api.ServiceSpec{svc}}, "run"); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		w.Plan()
	}
	b.ReportMetric(10_000*float64(b.N)/b.Elapsed().Seconds(), "placements/s")
}

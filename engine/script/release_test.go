package script_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	"orch/engine/api"
	"orch/engine/script"
	"orch/engine/simulate"
	"orch/engine/state"
)

// TestReleaseIsAllOrNothing: whatever a release changes, breaks or is killed
// in, in the end the cluster runs all of it, or all of the one before.
func TestReleaseIsAllOrNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := script.New()
		w.JobsEnd = true
		check := func(err error) {
			if err != nil {
				t.Fatalf("%v\n%s", err, w.Show())
			}
		}
		for _, id := range []string{"a", "b"} {
			check(w.NodeUp(&api.Node{Id: id}))
		}
		old := drawRelease(t, "v1", nil)
		w.Now = w.Now.Add(time.Second)
		_, err := w.Apply(old, "run")
		check(err)
		check(w.Advance(10 * time.Minute))
		if o := w.State.View().Release("app", 1).Outcome; o != "succeeded" {
			t.Fatalf("the first release is %q\n%s", o, w.Show())
		}
		before := runs(w)
		next := drawRelease(t, "v2", old)
		if rapid.Bool().Draw(t, "broken") {
			w.Break("v2", "it broke", -1, -1)
		}
		w.Committed = func(v state.View, deltas []state.Delta) error {
			if err := inOrder(v, deltas); err != nil {
				return err
			}
			return script.Bounds(v, deltas)
		}
		_, err = w.Apply(next, "run")
		check(err)
		for range rapid.IntRange(0, 4).Draw(t, "kills") {
			check(w.Advance(time.Duration(rapid.IntRange(0, 10).Draw(t, "seconds")) * time.Second))
			check(w.KillLeader())
		}
		check(w.Advance(time.Hour))
		v := w.State.View()
		r := v.Release("app", 2)
		switch r.Outcome {
		case "succeeded":
			if got, want := runs(w), wants(next); got != want {
				t.Fatalf("it succeeded, and runs\n%swhere\n%swas declared", got, want)
			}
		case "rolled_back":
			if got := runs(w); got != before {
				t.Fatalf("it was taken back (%s), and runs\n%swhere\n%sran before", r.Reason, got, before)
			}
		default:
			t.Fatalf("it came to %q: %s\n%v\n%s", r.Outcome, r.Reason, r.Steps, w.Show())
		}
	})
}

// drawRelease declares some of five services, each after those before it.
func drawRelease(t *rapid.T, image string, old *api.StackSpec) *api.StackSpec {
	s := &api.StackSpec{Name: "app", MaxParallel: rapid.Int32Range(0, 2).Draw(t, "max_parallel")}
	for i := range 5 {
		name := fmt.Sprintf("s%d", i)
		if rapid.IntRange(0, 3).Draw(t, "absent") == 0 {
			continue
		}
		svc := &api.ServiceSpec{Name: name, Mode: "replicated", Replicas: rapid.Int32Range(1, 3).Draw(t, "replicas"),
			Task: &api.TaskSpec{Runtime: "docker", Image: "v1"}, Labels: map[string]string{"x": rapid.SampledFrom([]string{"1", "2"}).Draw(t, "label")},
			Update: &api.RolloutPolicy{Parallelism: "2", Monitor: durationpb.New(time.Second), MinAvailable: "50%"}}
		if rapid.IntRange(0, 2).Draw(t, "new image") == 0 {
			svc.Task.Image = image
		}
		if rapid.IntRange(0, 4).Draw(t, "job") == 0 {
			svc.Mode, svc.Replicas, svc.Job, svc.Update = "job", 0, &api.JobPolicy{}, nil
		}
		for _, e := range s.Services {
			if rapid.IntRange(0, 2).Draw(t, "depends") == 0 {
				svc.DependsOn = append(svc.DependsOn, &api.Dependency{Service: e.Name, Condition: "started"})
			}
		}
		if i := slices.IndexFunc(old.GetServices(), func(o *api.ServiceSpec) bool { return o.Name == name }); i >= 0 && rapid.Bool().Draw(t, "same") {
			deps := svc.DependsOn
			svc = proto.CloneOf(old.Services[i])
			svc.DependsOn = deps
		}
		s.Services = append(s.Services, svc)
	}
	return s
}

// runs is what the stack's services are, and what runs of them.
func runs(w *simulate.World) string {
	v := w.State.View()
	var out strings.Builder
	for _, svc := range v.ServicesOf("app") {
		n := map[string]int{}
		for _, t := range v.TasksOf(svc.Id) {
			if !state.Ended(t.Status.GetState()) {
				n[simulate.Image(v, t)]++
			}
		}
		fmt.Fprintf(&out, "%s %s\n", describe(svc.Spec), tally(n))
	}
	return out.String()
}

// wants is what runs gives once a declaration has come true.
func wants(s *api.StackSpec) string {
	var out strings.Builder
	for _, svc := range s.Services {
		n := map[string]int{}
		if svc.Mode == "replicated" {
			n[svc.Task.Image] = int(svc.Replicas)
		}
		fmt.Fprintf(&out, "%s %s\n", describe(svc), tally(n))
	}
	return out.String()
}

func describe(s *api.ServiceSpec) string {
	return fmt.Sprintf("%s %s x%d %s %v", s.Name, s.Mode, s.Replicas, s.Task.Image, s.Labels)
}

func tally(n map[string]int) string { return fmt.Sprint(n) }

var errOrder = errors.New("began too early")

// inOrder: a service's rollout begins only when those of what it depends on
// are through.
func inOrder(v state.View, deltas []state.Delta) error {
	for _, d := range deltas {
		after, _ := d.After.(*api.Rollout)
		before, _ := d.Before.(*api.Rollout)
		if after == nil || before == nil || len(before.Journal) > 0 || len(after.Journal) == 0 {
			continue
		}
		svc := v.Service(after.ServiceId)
		for _, dep := range svc.Spec.DependsOn {
			on := v.Service("app/" + dep.Service)
			if ro := v.Rollout(on.GetRolloutId()); ro != nil && ro.Release == after.Release && ro.Outcome != "succeeded" {
				return fmt.Errorf("%w: %s, before %s", errOrder, svc.Id, on.Id)
			}
		}
	}
	return nil
}

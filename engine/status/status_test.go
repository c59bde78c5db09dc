package status_test

import (
	"fmt"
	"testing"
	"time"

	"orch/engine/api"
	"orch/engine/script"
	"orch/engine/simulate"
	"orch/engine/status"
)

func web(n int32) *api.ServiceSpec {
	return &api.ServiceSpec{Name: "web", Mode: "replicated", Replicas: n, Task: &api.TaskSpec{Runtime: "docker", Image: "v1"},
		Ports: []*api.PortSpec{{Target: 1}, {Target: 2, Publish: 80}}}
}

// TestWhoWaitsIsTold: what `orch run` goes by.
func TestWhoWaitsIsTold(t *testing.T) {
	type told struct {
		state             string
		converged, failed bool
		reason            string
	}
	ok := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	run := func(w *simulate.World, d time.Duration) { ok(w.Advance(d)) }
	for name, c := range map[string]struct {
		do   func(*simulate.World)
		want told
	}{
		"nothing yet": {func(*simulate.World) {}, told{"waiting", false, false, "its tasks are being made"}},
		"running":     {func(w *simulate.World) { run(w, time.Second) }, told{"running", true, false, ""}},
		"pulling": {func(w *simulate.World) {
			w.Hold("app/web", api.TaskState_TASK_STATE_STARTING)
			run(w, time.Second)
		}, told{"waiting", false, false, "is being prepared"}},
		"starting": {func(w *simulate.World) {
			w.Hold("app/web", api.TaskState_TASK_STATE_RUNNING)
			run(w, time.Second)
		}, told{"starting", false, false, "waits for its first good health check"}},
		"crash loop": {func(w *simulate.World) {
			w.Break("v1", "it broke", -1, -1)
			run(w, time.Minute)
		}, told{"failing", false, true, "app/web.1 failed 6 times in a row: it broke"}},
		"stopping": {func(w *simulate.World) {
			run(w, time.Second)
			w.Hold("app/web", api.TaskState_TASK_STATE_STOPPED)
			ok(w.SetStack("app", "stop"))
			run(w, time.Second)
		}, told{"stopping", false, false, "waits for 2 tasks to stop"}},
		"stopped": {func(w *simulate.World) {
			run(w, time.Second)
			ok(w.SetStack("app", "stop"))
			run(w, time.Second)
		}, told{"stopped", true, false, ""}},
		"in a pause": {func(w *simulate.World) {
			run(w, time.Second)
			s := web(2)
			s.Task.Image = "v2"
			s.Update = &api.RolloutPolicy{Delay: simulate.Duration(time.Minute)}
			_, err := w.Apply(&api.StackSpec{Name: "app", Services: []*api.ServiceSpec{s}}, "run")
			ok(err)
			run(w, time.Second)
		}, told{"updating", false, false, "pauses for 59s"}},
	} {
		w := script.New()
		ok(w.NodeUp(&api.Node{Id: "a"}))
		_, err := w.Apply(&api.StackSpec{Name: "app", Services: []*api.ServiceSpec{web(2)}}, "run")
		ok(err)
		c.do(w)
		st := status.Stack(w.State.View(), "app", w.Now)
		s := st.Services[0]
		if got := (told{s.State, s.Converged, s.Failed, s.Reason}); got != c.want {
			t.Errorf("%s: got %+v, want %+v", name, got, c.want)
		}
		if st.Converged != s.Converged || st.Failed != s.Failed || len(s.Ports) != 1 {
			t.Errorf("%s: the stack says %v", name, st)
		}
	}
	if status.Stack(script.New().State.View(), "none", time.Time{}) != nil {
		t.Error("a stack that isn't there has a status")
	}
}

func BenchmarkService10000Slots(b *testing.B) {
	w := script.New()
	if err := w.NodeUp(&api.Node{Id: "a"}); err != nil {
		b.Fatal(err)
	}
	if _, err := w.Apply(&api.StackSpec{Name: "app", Services: []*api.ServiceSpec{web(10_000)}}, "run"); err != nil {
		b.Fatal(err)
	}
	if err := w.Settle(); err != nil {
		b.Fatal(err)
	}
	v := w.State.View()
	for b.Loop() {
		if s := status.Service(v, v.Service("app/web"), w.Now); !s.Converged {
			b.Fatal(fmt.Sprint(s))
		}
	}
}

// A service runs, but a host has something else on its port.
func TestAClosedPortIsTold(t *testing.T) {
	closed := func(port uint32) *api.NodeFacts {
		return &api.NodeFacts{CpusMilli: 8000, Memory: 16 << 30, Runtimes: []*api.RuntimeFacts{{Name: "docker"}},
			Plane: &api.PlaneFacts{Closed: []*api.ClosedPort{{Port: port, Why: "address already in use"}}}}
	}
	w := script.New()
	for id, facts := range map[string]*api.NodeFacts{"a": closed(80), "b": closed(81), "c": closed(80)} {
		if err := w.NodeUp(&api.Node{Id: id, Name: id, Facts: facts}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Apply(&api.StackSpec{Name: "app", Services: []*api.ServiceSpec{web(2)}}, "run"); err != nil {
		t.Fatal(err)
	}
	if err := w.Advance(time.Second); err != nil {
		t.Fatal(err)
	}
	s := status.Stack(w.State.View(), "app", w.Now).Services[0]
	if want := "port 80 is closed on a, c: address already in use"; s.Warning != want || !s.Converged {
		t.Errorf("%q, converged %t; want %q", s.Warning, s.Converged, want)
	}
}

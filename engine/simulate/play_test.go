package simulate_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"orch/engine/api"
	"orch/engine/script"
	"orch/engine/simulate"
)

func stack(image string, replicas int32) simulate.Source {
	web := &api.ServiceSpec{Name: "web", Mode: "replicated", Replicas: replicas, Task: &api.TaskSpec{Runtime: "docker", Image: image},
		Update: &api.RolloutPolicy{Order: "start-first", Monitor: durationpb.New(10 * time.Second)}}
	return simulate.Source{Spec: &api.StackSpec{Name: "app", Services: []*api.ServiceSpec{web}}}
}

func newPlay() *simulate.Play {
	return &simulate.Play{Before: stack("web:1", 2), After: stack("web:2", 2), Strategy: script.Rolling{},
		Nodes: []*api.Node{{Id: "a"}, {Id: "b"}}}
}

func run(t *testing.T, p *simulate.Play) *simulate.Played {
	t.Helper()
	steady, err := p.Steady(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	played, err := p.Run(t.Context(), steady)
	if err != nil {
		t.Fatal(err)
	}
	return played
}

// TestFates: each of them comes when it is said to.
func TestFates(t *testing.T) {
	d := func(d time.Duration) *time.Duration { return &d }
	for name, c := range map[string]struct {
		fate    simulate.Fate
		outcome string
		took    time.Duration
		reason  string
	}{
		"well":           {simulate.Fate{}, "succeeded", 20 * time.Second, ""},
		"slow":           {simulate.Fate{Start: 30 * time.Second}, "succeeded", 80 * time.Second, ""},
		"never ready":    {simulate.Fate{Never: true}, "rolled_back", 310 * time.Second, "waits for its first good health check"},
		"crash":          {simulate.Fate{Crash: d(0), Early: true}, "rolled_back", 10 * time.Second, "exited with code 1"},
		"crash later":    {simulate.Fate{Crash: d(8 * time.Second)}, "rolled_back", 18 * time.Second, "exited with code 1"},
		"crash too late": {simulate.Fate{Crash: d(time.Hour)}, "succeeded", 20 * time.Second, ""},
		"sick":           {simulate.Fate{Sick: d(8 * time.Second)}, "rolled_back", 320 * time.Second, "its health check fails"},
	} {
		p := newPlay()
		p.Fate = func(_ *api.Task, is simulate.Version, fresh bool) simulate.Fate {
			if is == simulate.NewVersion && fresh {
				return c.fate
			}
			return simulate.Fate{}
		}
		got := run(t, p)
		if got.Outcome != c.outcome || !strings.Contains(got.Reason, c.reason) || got.Took > c.took || got.Took < c.took-10*time.Second {
			t.Errorf("%s: %s after %s: %s", name, got.Outcome, got.Took, got.Reason)
		}
	}
}

func TestPlayedCounts(t *testing.T) {
	p := newPlay()
	web := run(t, p).Services["web"]
	if web.Unavailable != 0 || web.Surge != 1 || len(web.Ops) != 6 || fmt.Sprint(web.Ops[3].Slots) != "[web.2]" || web.Ops[3].At != 10*time.Second {
		t.Errorf("start-first: %+v", web)
	}
	p.Before.Spec.Services[0].Update.Order, p.After.Spec.Services[0].Update.Order = "stop-first", "stop-first"
	if web := run(t, p).Services["web"]; web.Unavailable != 1 || web.Surge != 0 {
		t.Errorf("stop-first: %+v", web)
	}
}

func TestLeaderOfAPlayDies(t *testing.T) {
	p := newPlay()
	want := run(t, p)
	for op := range want.Services["web"].Ops {
		p.Kill = func(_ string, n int) bool { return n == op }
		got := run(t, p)
		if got.Ending() != want.Ending() || got.Took != want.Took+3*time.Second && op < len(want.Services["web"].Ops)-1 {
			t.Errorf("killed at op %d it took %s and came to\n%s", op, got.Took, got.Ending())
		}
	}
}

func TestNodesOfAPlayGoDown(t *testing.T) {
	p := newPlay()
	p.Down = map[string]time.Duration{"a": -1}
	got := run(t, p)
	if got.Outcome != "succeeded" {
		t.Errorf("%s: %s", got.Outcome, got.Reason)
	}
	for _, task := range got.Services["web"].Tasks {
		if task.Serving && task.Node != "b" {
			t.Errorf("%+v", task)
		}
	}
}

func TestNotSteady(t *testing.T) {
	p := newPlay()
	p.Before.Spec.Services[0].Placement = &api.Placement{Constraints: []string{"node.labels.zone == a"}}
	if _, err := p.Steady(t.Context()); err == nil || !strings.Contains(err.Error(), "the older release doesn't come up: web is") || !strings.Contains(err.Error(), "zone") {
		t.Errorf("got %v", err)
	}
}

func TestOlder(t *testing.T) {
	for image, want := range map[string]string{"web:2": "web:older", "web": "web:older", "r:5000/web": "r:5000/web:older", "r/web:1@sha256:00": "r/web:older", "": ""} {
		s := stack(image, 1).Spec
		old := simulate.Older(s)
		if got := old.Services[0].Task.Image; got != want || simulate.VersionOf(old, "web") == simulate.VersionOf(s, "web") {
			t.Errorf("%q: %q", image, got)
		}
	}
}

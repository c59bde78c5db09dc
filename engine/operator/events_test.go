package operator_test

import (
	"fmt"
	"testing"
	"time"

	"orch/engine/api"
	"orch/engine/operator"
	"orch/engine/state"
)

func joined(i int) state.Change {
	return state.Change{Index: uint64(i), Time: time.Unix(int64(i), 0), Deltas: []state.Delta{{After: &api.Node{Name: fmt.Sprint("n", i)}}}}
}

func TestRing(t *testing.T) {
	r := operator.NewRing()
	events, next, more := r.Since(0)
	if len(events) != 0 || next != 0 {
		t.Fatal(events, next)
	}
	r.Add([]state.Change{{Index: 1}}) // nothing an operator would care about
	select {
	case <-more:
		t.Error("no news woke a follower")
	default:
	}
	r.Add([]state.Change{joined(1), joined(2)})
	<-more
	if events, next, more = r.Since(0); len(events) != 2 || next != 2 || events[1].Node != "n2" || events[1].Index != 2 || events[1].Time.Seconds != 2 {
		t.Error(events, next)
	}
	for i := 3; i <= 5000; i++ {
		r.Add([]state.Change{joined(i)})
	}
	<-more
	// Who is far behind gets what is left; numbers go on.
	if events, next, _ = r.Since(2); len(events) != 4096 || next != 5000 || events[4095].Node != "n5000" {
		t.Error(len(events), next)
	}
	if events, _, _ = r.Since(4999); len(events) != 1 {
		t.Error(events)
	}
}

func TestDescribe(t *testing.T) {
	task := func(s api.TaskState, ready bool, wait string) *api.Task {
		t := &api.Task{Id: "web/app.1#1", ServiceId: "web/app", Status: &api.TaskStatus{State: s, Ready: ready}}
		if wait != "" {
			t.Wait = &api.Wait{Reason: wait}
		}
		return t
	}
	const pending, running = api.TaskState_TASK_STATE_PENDING, api.TaskState_TASK_STATE_RUNNING
	for _, c := range []struct {
		before, after any
		want          string
	}{
		{nil, task(pending, false, "2 nodes lack memory"), "task.pending 2 nodes lack memory"},
		{task(pending, false, "a"), task(pending, false, "b"), "task.waits b"},
		{task(running, true, ""), task(running, false, ""), "task.unready "},
		{task(running, false, ""), task(running, true, ""), "task.ready "},
		{task(running, true, ""), task(running, true, ""), ""},
		{task(running, true, ""), nil, ""},
		{nil, &api.Node{}, "node.joined "},
		{&api.Node{Status: "up"}, &api.Node{Status: "down", StatusReason: "silent"}, "node.down silent"},
		{&api.Node{Availability: "active"}, &api.Node{Availability: "drain"}, "node.availability drain"},
		{nil, &api.Stack{}, "stack.created "},
		{&api.Stack{}, &api.Stack{Stopped: true}, "stack.stopping "},
		{&api.Stack{Stopped: true}, &api.Stack{}, "stack.started "},
		{&api.Stack{}, &api.Stack{Removed: true}, "stack.removing "},
		{&api.Stack{}, nil, "stack.removed "},
		{nil, &api.Release{Number: 3, Cause: "run"}, "release.created release 3 (run)"},
		{nil, &api.Service{}, "service.created "},
		{&api.Service{Version: "a"}, &api.Service{Version: "b"}, "service.version a -> b"},
		{&api.Service{Spec: &api.ServiceSpec{Replicas: 1}}, &api.Service{Spec: &api.ServiceSpec{Replicas: 2}}, "service.scaled 1 -> 2"},
		{&api.Service{}, &api.Service{Run: &api.JobRun{Number: 1}}, "job.started run 1"},
		{&api.Service{Run: &api.JobRun{Number: 1}}, &api.Service{Run: &api.JobRun{Number: 1, Outcome: "failed", Reason: "r"}}, "job.failed r"},
		{&api.Service{Run: &api.JobRun{Outcome: "failed"}}, &api.Service{}, ""},
		{&api.Service{}, nil, "service.removed "},
		{&api.Service{Run: &api.JobRun{Number: 1, Outcome: "failed"}}, &api.Service{Run: &api.JobRun{Number: 2}}, "job.started run 2"},
		{nil, &api.Rollout{FromVersion: "a", ToVersion: "b"}, "rollout.started a -> b"},
		{&api.Rollout{}, &api.Rollout{Outcome: "succeeded"}, "rollout.succeeded "},
		{&api.Rollout{}, &api.Rollout{Phase: "rollback", Reason: "why"}, "rollout.rollback why"},
		{&api.Rollout{}, &api.Rollout{Journal: []*api.Op{{Kind: "replace", Slots: []string{"a", "b"}}}}, "rollout.replace a b"},
	} {
		got := ""
		for _, e := range operator.Describe(state.Delta{Before: c.before, After: c.after}) {
			got += e.Type + " " + e.Message
		}
		if got != c.want {
			t.Errorf("%v -> %v: %q, want %q", c.before, c.after, got, c.want)
		}
	}
}

package task_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"orch/agent/task"
	"orch/engine/api"
)

const (
	run  = api.TaskDesired_TASK_DESIRED_RUN
	stop = api.TaskDesired_TASK_DESIRED_STOP
)

// every calls do with each knowledge there can be.
func every(do func(task.Knowledge)) {
	for _, desired := range []api.TaskDesired{run, stop} {
		for state := range api.TaskState(len(api.TaskState_name)) {
			for _, removed := range []bool{false, true} {
				for _, prepared := range []bool{false, true} {
					for phase := task.Absent; phase <= task.Exited; phase++ {
						for _, drained := range []bool{false, true} {
							do(task.Knowledge{Desired: desired, State: state, Removed: removed, Prepared: prepared, Drained: drained, Phase: phase})
						}
					}
				}
			}
		}
	}
}

func TestNextNeverStartsWhatMustNotRun(t *testing.T) {
	every(func(k task.Knowledge) {
		a := task.Next(k)
		ended := k.State >= api.TaskState_TASK_STATE_COMPLETE
		unwanted := ended || k.Removed || k.Desired == stop
		ran := k.State >= api.TaskState_TASK_STATE_STARTING || k.Phase == task.Exited
		switch {
		case (a == task.Start || a == task.Prepare) && (unwanted || ran || k.Phase == task.Running):
			t.Errorf("%+v: action %d", k, a)
		case a == task.Start && !k.Prepared:
			t.Errorf("%+v: started unprepared", k)
		case k.Phase == task.Running && k.Desired == stop && !k.Drained && !k.Removed && !ended && a != task.Watch:
			t.Errorf("%+v: action %d, though it still serves", k, a)
		case k.Phase == task.Running && (ended || k.Removed || k.Desired == stop && k.Drained) != (a == task.Stop):
			t.Errorf("%+v: action %d", k, a)
		case a == task.Watch && k.Phase != task.Running:
			t.Errorf("%+v: watched", k)
		case a == task.Finish && (ended || k.Phase == task.Running):
			t.Errorf("%+v: finished", k)
		case (a == task.Remove || a == task.Forget) && !k.Removed:
			t.Errorf("%+v: taken away", k)
		case a == task.Forget && k.Phase != task.Absent:
			t.Errorf("%+v: something is left", k)
		case a == task.Rest && !(ended && !k.Removed):
			t.Errorf("%+v: rests without an end", k)
		}
		if a == task.Finish {
			if s, _ := task.End(k, task.Observed{Phase: k.Phase}); s < api.TaskState_TASK_STATE_COMPLETE || s > api.TaskState_TASK_STATE_FAILED {
				t.Errorf("%+v ends as %s", k, s)
			}
		}
	})
}

// act is what a worker and a runtime that does what it is told make of an
// action.
func act(k task.Knowledge, a task.Action) task.Knowledge {
	state := func(s api.TaskState) { k.State = max(k.State, s) }
	switch a {
	case task.Prepare:
		k.Prepared = true
		state(api.TaskState_TASK_STATE_PREPARING)
		k.Phase = max(k.Phase, task.Created)
	case task.Start:
		k.Phase = task.Running
		state(api.TaskState_TASK_STATE_STARTING)
	case task.Watch:
		k.Phase = task.Exited // it ends some time
	case task.Stop:
		k.Phase = task.Exited
		if k.State < api.TaskState_TASK_STATE_STOPPING {
			state(api.TaskState_TASK_STATE_STOPPING)
		}
	case task.Finish:
		s, _ := task.End(k, task.Observed{Phase: k.Phase})
		state(s)
	case task.Remove:
		k.Phase = task.Absent
	}
	return k
}

func settles(k task.Knowledge) (task.Knowledge, bool) {
	for range 6 {
		a := task.Next(k)
		if a == task.Rest || a == task.Forget {
			return k, true
		}
		k = act(k, a)
	}
	return k, false
}

func TestEveryStateLeadsToRest(t *testing.T) {
	every(func(k task.Knowledge) {
		if end, ok := settles(k); !ok {
			t.Errorf("%+v goes on: %+v", k, end)
		}
	})
}

// Whatever happens in between - wishes change, the thing dies or vanishes,
// the agent begins anew - a task runs once at most, states only advance, and
// it comes to rest.
func TestAnyHistory(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := task.Knowledge{Desired: run, State: api.TaskState_TASK_STATE_ASSIGNED}
		starts := 0
		for range rapid.IntRange(0, 20).Draw(t, "steps") {
			before := k
			switch rapid.SampledFrom([]string{"act", "act", "act", "stop", "remove", "dies", "vanishes", "agent restarts", "lost"}).Draw(t, "what") {
			case "act":
				a := task.Next(k)
				if a == task.Start {
					starts++
				}
				k = act(k, a)
			case "stop":
				k.Desired = stop
			case "remove":
				k.Removed = true
			case "dies":
				if k.Phase == task.Running {
					k.Phase = task.Exited
				}
			case "vanishes":
				k.Phase = task.Absent
			case "agent restarts":
				k.Prepared = false
			case "lost":
				k.State = api.TaskState_TASK_STATE_LOST
			}
			if k.State < before.State {
				t.Fatalf("%s after %s", k.State, before.State)
			}
		}
		if starts > 1 {
			t.Fatalf("started %d times", starts)
		}
		if _, ok := settles(k); !ok {
			t.Fatalf("%+v goes on", k)
		}
	})
}

func TestEnd(t *testing.T) {
	for _, c := range []struct {
		desired api.TaskDesired
		seen    task.Observed
		state   api.TaskState
		words   string
	}{
		{stop, task.Observed{Phase: task.Exited, ExitCode: 143}, api.TaskState_TASK_STATE_STOPPED, ""},
		{run, task.Observed{Phase: task.Absent}, api.TaskState_TASK_STATE_FAILED, "it disappeared"},
		{run, task.Observed{Phase: task.Created}, api.TaskState_TASK_STATE_FAILED, "it never ran"},
		{run, task.Observed{Phase: task.Exited}, api.TaskState_TASK_STATE_COMPLETE, "exited with code 0"},
		{run, task.Observed{Phase: task.Exited, ExitCode: 3}, api.TaskState_TASK_STATE_FAILED, "exited with code 3"},
		{run, task.Observed{Phase: task.Exited, ExitCode: 137}, api.TaskState_TASK_STATE_FAILED, "exited with code 137 (killed)"},
		{run, task.Observed{Phase: task.Exited, ExitCode: -1}, api.TaskState_TASK_STATE_FAILED, "unknown exit code"},
		{run, task.Observed{Phase: task.Exited, ExitCode: 137, Error: "out of memory"}, api.TaskState_TASK_STATE_FAILED, "out of memory"},
	} {
		state, words := task.End(task.Knowledge{Desired: c.desired, Phase: c.seen.Phase}, c.seen)
		if state != c.state || !strings.Contains(words, c.words) {
			t.Errorf("%+v: %s %q", c, state, words)
		}
	}
}

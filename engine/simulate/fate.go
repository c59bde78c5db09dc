package simulate

import (
	"time"

	"google.golang.org/protobuf/proto"

	"orch/engine/api"
)

// Fate is how a task goes by itself. With the zero value it is ready at once
// and stays so; World.Fate gives each task its own, Break goes by image.
type Fate struct {
	Start time.Duration  // from its start until it is ready
	Never bool           // it starts, and is never ready
	Sick  *time.Duration // so long after it was ready it isn't any more
	Crash *time.Duration // so long after it was ready it exits with code 1
	Early bool           // Crash comes before it is ready, at once
}

func (w *World) fate(t *api.Task) Fate {
	if w.Fate == nil || t == nil {
		return Fate{}
	}
	return w.Fate(t)
}

const (
	crashed   = "exited with code 1"
	firstGood = "waits for its first good health check"
	sick      = "not ready: its health check fails"
)

// befalls is what a task's fate makes of it now, before anything else does;
// decided is false if that is nothing.
func (f Fate) befalls(w *World, st *api.TaskStatus) (next *api.TaskStatus, decided bool) {
	switch st.State {
	case api.TaskState_TASK_STATE_STARTING:
		switch {
		case f.Crash != nil && f.Early:
			return w.to(st, api.TaskState_TASK_STATE_FAILED, crashed), true
		case f.Never || f.Start > 0 && w.Now.Before(st.StartedAt.AsTime().Add(f.Start)):
			return said(st, firstGood, false), true
		}
	case api.TaskState_TASK_STATE_RUNNING:
		if f.Crash != nil && !w.Now.Before(st.ReadySince.AsTime().Add(*f.Crash)) {
			return w.to(st, api.TaskState_TASK_STATE_FAILED, crashed), true
		}
		if f.Sick != nil && !w.Now.Before(st.ReadySince.AsTime().Add(*f.Sick)) {
			return said(st, sick, false), true
		}
	}
	return nil, false
}

// said is st with another message; nil if it has it already.
func said(st *api.TaskStatus, message string, ready bool) *api.TaskStatus {
	if st.Message == message && st.Ready == ready {
		return nil
	}
	st = proto.CloneOf(st)
	st.Message, st.Ready = message, ready
	return st
}

// due is when something befalls a task by time alone; zero: never.
func (f Fate) due(st *api.TaskStatus) (at time.Time) {
	switch {
	case st.State == api.TaskState_TASK_STATE_STARTING && f.Start > 0 && !f.Never && st.StartedAt != nil:
		return st.StartedAt.AsTime().Add(f.Start)
	case st.State == api.TaskState_TASK_STATE_RUNNING && st.ReadySince != nil:
		for _, d := range []*time.Duration{f.Crash, f.Sick} {
			if d != nil && (at.IsZero() || st.ReadySince.AsTime().Add(*d).Before(at)) {
				at = st.ReadySince.AsTime().Add(*d)
			}
		}
	}
	return at
}

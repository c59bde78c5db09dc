package simulate

import (
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"orch/engine/api"
	"orch/engine/state"
)

// agent is a node's fake agent. local is what really is there; it outlives
// the connection.
type agent struct {
	node  string
	down  bool
	local map[string]*api.TaskStatus
}

// broken says how tasks of an image end by themselves.
type broken struct {
	message string
	after   time.Duration // after they were ready; negative: before
	left    int           // tasks still to fail; negative: all
}

// Hold keeps tasks whose id begins with prefix from getting further than
// before the state.
func (w *World) Hold(prefix string, before api.TaskState) { w.holds[prefix] = before }

// Release ends a hold.
func (w *World) Release(prefix string) { delete(w.holds, prefix) }

// Break makes tasks of an image fail: before they are ready if after is
// negative, else that long after it. n is how many; negative: all.
func (w *World) Break(image, message string, after time.Duration, n int) {
	w.broken[image] = broken{message, after, n}
}

// Mend lets them run.
func (w *World) Mend(image string) { delete(w.broken, image) }

func (w *World) held(id string, next api.TaskState) bool {
	for prefix, before := range w.holds {
		if strings.HasPrefix(id, prefix) && next >= before && !(next > api.TaskState_TASK_STATE_STOPPING && before < api.TaskState_TASK_STATE_STOPPING) {
			return true
		}
	}
	return false
}

// step takes each task one state further and reports it.
func (a *agent) step(w *World) (worked bool, err error) {
	if a.down {
		return false, nil
	}
	v := w.State.View()
	report := &api.ReportStatus{NodeId: a.node}
	seen := map[string]bool{}
	for _, t := range v.TasksOn(a.node) {
		seen[t.Id] = true
		if state.Ended(t.Status.GetState()) {
			delete(a.local, t.Id)
			continue
		}
		st := a.local[t.Id]
		if st == nil {
			st = proto.CloneOf(t.Status)
			a.local[t.Id] = st
		}
		if next := a.next(w, v, t, st); next != nil {
			a.local[t.Id] = next
		}
		if now := a.local[t.Id]; !proto.Equal(now, t.Status) {
			report.Statuses = append(report.Statuses, proto.CloneOf(now))
		}
	}
	for id := range a.local {
		if !seen[id] {
			delete(a.local, id)
		}
	}
	if len(report.Statuses) == 0 {
		return false, nil
	}
	_, err = w.Propose(&api.Command{Kind: &api.Command_Reports{Reports: &api.Reports{Reports: []*api.ReportStatus{report}}}})
	return true, err
}

// next is the status that follows; nil: it stays.
func (a *agent) next(w *World, v state.View, t *api.Task, st *api.TaskStatus) *api.TaskStatus {
	if state.Ended(st.State) {
		return nil
	}
	if t.Desired == api.TaskDesired_TASK_DESIRED_STOP && (t.Drained || w.Followed == nil) {
		if w.held(t.Id, api.TaskState_TASK_STATE_STOPPED) {
			if st.State == api.TaskState_TASK_STATE_STOPPING {
				return nil
			}
			return w.to(st, api.TaskState_TASK_STATE_STOPPING, "")
		}
		return w.to(st, api.TaskState_TASK_STATE_STOPPED, "")
	}
	if next, decided := w.fate(t).befalls(w, st); decided {
		return next
	}
	image := v.Version(t.ServiceId, t.Version).GetTask().GetImage()
	b, bad := w.broken[image]
	bad = bad && b.left != 0
	var next api.TaskState
	switch st.State {
	case api.TaskState_TASK_STATE_ASSIGNED:
		next = api.TaskState_TASK_STATE_PREPARING
	case api.TaskState_TASK_STATE_PREPARING:
		if t.Hold {
			if st.PreparedAt != nil || w.held(t.Id, api.TaskState_TASK_STATE_STARTING) {
				return nil
			}
			st = proto.CloneOf(st)
			st.PreparedAt = timestamppb.New(w.Now)
			return st
		}
		next = api.TaskState_TASK_STATE_STARTING
	case api.TaskState_TASK_STATE_STARTING:
		next = api.TaskState_TASK_STATE_RUNNING
		if bad && b.after < 0 && !w.held(t.Id, next) {
			w.spend(image)
			return w.to(st, api.TaskState_TASK_STATE_FAILED, b.message)
		}
	case api.TaskState_TASK_STATE_RUNNING:
		if w.JobsEnd && t.Run > 0 {
			return w.to(st, api.TaskState_TASK_STATE_COMPLETE, "exited with code 0")
		}
		if bad && b.after >= 0 && !w.Now.Before(st.ReadySince.AsTime().Add(b.after)) {
			w.spend(image)
			return w.to(st, api.TaskState_TASK_STATE_FAILED, b.message)
		}
		return nil
	default:
		return nil
	}
	if w.held(t.Id, next) {
		return nil
	}
	return w.to(st, next, "")
}

func (w *World) spend(image string) {
	b := w.broken[image]
	b.left--
	w.broken[image] = b
}

// wake is when a task here will fail by itself.
func (a *agent) wake(w *World) (at time.Time) {
	if a.down {
		return at
	}
	v := w.State.View()
	for id, st := range a.local {
		t := v.Task(id)
		if due := w.fate(t).due(st); due.After(w.Now) && (at.IsZero() || due.Before(at)) {
			at = due
		}
		b, ok := w.broken[v.Version(t.GetServiceId(), t.GetVersion()).GetTask().GetImage()]
		if !ok || b.after < 0 || b.left == 0 || st.ReadySince == nil {
			continue
		}
		if due := st.ReadySince.AsTime().Add(b.after); at.IsZero() || due.Before(at) {
			at = due
		}
	}
	return at
}

// to is st in another state, now.
func (w *World) to(st *api.TaskStatus, s api.TaskState, message string) *api.TaskStatus {
	st = proto.CloneOf(st)
	now := timestamppb.New(w.Now)
	st.State, st.StateSince, st.Message, st.Ready = s, now, message, false
	switch s {
	case api.TaskState_TASK_STATE_STARTING:
		st.StartedAt = now
	case api.TaskState_TASK_STATE_RUNNING:
		st.Ready, st.ReadySince = true, now
	case api.TaskState_TASK_STATE_FAILED:
		st.ExitCode = 1
	}
	return st
}

// End ends a task by itself: completed with an empty message, else failed.
func (w *World) End(task, message string) bool {
	return w.change(task, func(st *api.TaskStatus) *api.TaskStatus {
		if message == "" {
			return w.to(st, api.TaskState_TASK_STATE_COMPLETE, "exited with code 0")
		}
		return w.to(st, api.TaskState_TASK_STATE_FAILED, message)
	})
}

// SetReady makes a task healthy, or unhealthy.
func (w *World) SetReady(task string, ready bool) bool {
	return w.change(task, func(st *api.TaskStatus) *api.TaskStatus {
		if ready {
			return w.to(st, api.TaskState_TASK_STATE_RUNNING, "")
		}
		st = proto.CloneOf(st)
		st.Ready, st.Message = false, "GET / answered 503"
		return st
	})
}

func (w *World) change(task string, f func(*api.TaskStatus) *api.TaskStatus) bool {
	for _, a := range w.agents {
		if st := a.local[task]; st != nil && !state.Ended(st.State) {
			a.local[task] = f(st)
			return true
		}
	}
	return false
}

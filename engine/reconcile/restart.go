package reconcile

import (
	"fmt"
	"time"

	"orch/engine/api"
)

// healthyFor is how long a task must have been ready so that its end is a
// first failure again and its replacement starts at once.
const healthyFor = 10 * time.Second

const (
	defaultDelay    = time.Second
	defaultMaxDelay = time.Minute
)

// again decides whether a slot gets a task after prev, and fills in when:
// exponential backoff between delay and max_delay, doubled with each failure
// in a row. What was ended from outside, or still runs and has to move, is no
// failure.
func (s *service) again(prev, next *api.Task) bool {
	if !healthyLong(prev, s.now) {
		next.Failures = prev.Failures
	}
	if !byItself(prev) {
		return true
	}
	switch c := s.restartCondition(); {
	case c == "none", c == "on-failure" && prev.Status.State == api.TaskState_TASK_STATE_COMPLETE:
		return false
	case healthyLong(prev, s.now):
		return true
	}
	next.Failures++
	if s.svc.Spec.Mode != "job" && GaveUp(s.svc.Spec.Restart, s.tasks[prev.SlotId], next.Failures) {
		return false
	}
	next.NotBefore = stamp(prev.Status.StateSince.AsTime().Add(Backoff(s.svc.Spec.Restart, next.Failures)))
	return true
}

// healthyLong says that t was ready for healthyFor before it ended.
func healthyLong(t *api.Task, now time.Time) bool {
	since, end := t.Status.GetReadySince(), now
	if since == nil {
		return false
	}
	if !live(t) {
		end = t.Status.StateSince.AsTime()
	}
	return end.Sub(since.AsTime()) >= healthyFor
}

// restartCondition is the policy's; a job counts its retries itself.
func (s *service) restartCondition() string {
	if s.svc.Spec.Mode == "job" {
		return "on-failure"
	}
	return s.svc.Spec.Restart.GetCondition()
}

// Backoff is the pause before the restart after so many failures in a row.
func Backoff(p *api.RestartPolicy, failures uint32) time.Duration {
	delay, most := defaultDelay, defaultMaxDelay
	if p.GetDelay() != nil {
		delay = p.Delay.AsDuration()
	}
	if p.GetMaxDelay() != nil {
		most = p.MaxDelay.AsDuration()
	}
	for i := uint32(1); i < failures && delay < most; i++ {
		delay *= 2
	}
	return min(delay, max(most, 0))
}

// GaveUp says whether a restart policy allows no further attempt after the
// ended tasks of a slot, the newest of which was failure number failures: more
// than max_attempts in a row, or within the window before the newest's end.
func GaveUp(p *api.RestartPolicy, tasks []*api.Task, failures uint32) bool {
	most := int(p.GetMaxAttempts())
	if most == 0 {
		return false
	}
	window := p.GetWindow().AsDuration()
	if window == 0 {
		return int(failures) > most
	}
	newest := last(tasks)
	end := newest.GetStatus().GetStateSince().AsTime()
	within := 0
	for _, t := range tasks {
		if byItself(t) && t.Version == newest.Version && end.Sub(t.Status.StateSince.AsTime()) < window {
			within++
		}
	}
	return within > most
}

// byItself says that a task ended without being told to.
func byItself(t *api.Task) bool {
	st := t.Status.GetState()
	return st == api.TaskState_TASK_STATE_FAILED || st == api.TaskState_TASK_STATE_COMPLETE
}

// waiting is what a dependency lacks; empty: nothing.
type waiting struct{ text string }

// waitFor says why t can't be given a node yet; nil: it can.
func (s *service) waitFor(slot *api.Slot, t *api.Task) *api.Wait {
	if nb := t.NotBefore; nb != nil && s.now.Before(nb.AsTime()) {
		s.wakeAt(nb.AsTime())
		return &api.Wait{Reason: s.failed(slot, t), Since: stamp(s.now), Deadline: nb}
	}
	if turn := s.awaitsTurn(); turn != "" && t.Attempt == 1 {
		return &api.Wait{Reason: turn, Since: stamp(s.now)}
	}
	for _, d := range s.svc.Spec.DependsOn {
		lack := s.lacks(d, t.Attempt == 1)
		if lack == "" {
			continue
		}
		w := &api.Wait{Since: stamp(s.now)}
		if d.Timeout.AsDuration() > 0 {
			w.Deadline = stamp(s.waitsFrom(t).Add(d.Timeout.AsDuration()))
		}
		w.Reason = "waits until " + d.Service + " is " + d.Condition + ": " + lack
		if w.Deadline != nil {
			if at := w.Deadline.AsTime(); s.now.Before(at) {
				s.wakeAt(at)
			} else {
				w.Reason += fmt.Sprintf(" (longer than its timeout of %s)", d.Timeout.AsDuration())
			}
		}
		return w
	}
	return nil
}

// failed says how often and how the attempts before t ended.
func (s *service) failed(slot *api.Slot, t *api.Task) string {
	message := ""
	for i := len(s.tasks[slot.Id]) - 1; i >= 0 && message == ""; i-- {
		if prev := s.tasks[slot.Id][i]; prev.Id != t.Id && byItself(prev) {
			message = prev.Status.Message
		}
	}
	text := "restarts in a moment"
	if t.Failures > 1 {
		text = "restarts after " + plural(int(t.Failures), "failure") + " in a row"
	}
	if message != "" {
		text += ": " + message
	}
	return text
}

// waitsFrom is when a task began to wait for its dependencies.
func (s *service) waitsFrom(t *api.Task) time.Time {
	from := s.now
	if t.CreatedAt != nil {
		from = t.CreatedAt.AsTime()
	}
	if nb := t.NotBefore; nb != nil && nb.AsTime().After(from) {
		from = nb.AsTime()
	}
	return from
}

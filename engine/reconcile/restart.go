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

// again decides whether a slot gets a task after prev ended, and fills in
// when: exponential backoff between delay and max_delay, doubled with each
// failure in a row.
func (s *service) again(prev, next *api.Task) bool {
	policy := s.svc.Spec.Restart
	switch prev.Status.GetState() {
	case api.TaskState_TASK_STATE_STOPPED, api.TaskState_TASK_STATE_LOST:
		next.Failures = prev.Failures
		return true
	case api.TaskState_TASK_STATE_COMPLETE:
		if c := s.restartCondition(); c == "on-failure" || c == "none" {
			return false
		}
	default:
		if s.restartCondition() == "none" {
			return false
		}
	}
	ended := prev.Status.GetStateSince().AsTime()
	if since := prev.Status.GetReadySince(); since != nil && ended.Sub(since.AsTime()) >= healthyFor {
		return true
	}
	next.Failures = prev.Failures + 1
	if s.exhausted(prev, next) {
		return false
	}
	next.NotBefore = stamp(ended.Add(Backoff(policy, next.Failures)))
	return true
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

// exhausted says that max_attempts restarts were made in a row, or within
// the policy's window.
func (s *service) exhausted(prev, next *api.Task) bool {
	return GaveUp(s.svc.Spec.Restart, s.tasks[prev.SlotId], next.Failures, s.now)
}

// GaveUp says whether a restart policy allows no further attempt after the
// ended tasks of a slot, the newest of which was failure number failures.
func GaveUp(p *api.RestartPolicy, tasks []*api.Task, failures uint32, now time.Time) bool {
	most := int(p.GetMaxAttempts())
	if most == 0 {
		return false
	}
	window := p.GetWindow().AsDuration()
	if window == 0 {
		return int(failures) > most
	}
	within := 0
	for _, t := range tasks {
		if t.Status.GetState() == api.TaskState_TASK_STATE_FAILED && now.Sub(t.Status.StateSince.AsTime()) < window {
			within++
		}
	}
	return within > most
}

// waiting is what a dependency lacks; empty: nothing.
type waiting struct{ text string }

// waitFor says why t can't be given a node yet; nil: it can.
func (s *service) waitFor(slot *api.Slot, t *api.Task) *api.Wait {
	if nb := t.NotBefore; nb != nil && s.now.Before(nb.AsTime()) {
		s.wakeAt(nb.AsTime())
		prev := last(s.tasks[slot.Id])
		if prev != nil && prev.Id == t.Id && len(s.tasks[slot.Id]) > 1 {
			prev = s.tasks[slot.Id][len(s.tasks[slot.Id])-2]
		}
		return &api.Wait{
			Reason: fmt.Sprintf("restarts after %s in a row: %s", plural(int(t.Failures), "failure"), prev.GetStatus().GetMessage()),
			Since:  stamp(s.now), Deadline: nb,
		}
	}
	for _, d := range s.svc.Spec.DependsOn {
		lack := s.lacks(d, t.Attempt == 1)
		if lack == "" {
			continue
		}
		w := &api.Wait{Since: stamp(s.now)}
		if t.Wait != nil && t.Wait.Deadline != nil {
			w.Deadline = t.Wait.Deadline
		} else if d.Timeout.AsDuration() > 0 {
			w.Deadline = stamp(s.now.Add(d.Timeout.AsDuration()))
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

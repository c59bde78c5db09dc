package reconcile

import (
	"cmp"
	"fmt"
	"strings"

	"orch/engine/api"
	"orch/engine/spec"
	"orch/engine/state"
)

// What a service can spare: however a strategy, a drain or a change of count
// asks for it, a task that serves is only stopped while min_available slots
// go on serving, and none is started beside another beyond max_surge. This is
// the one place where that is kept, so no script can break it.

// weigh counts how many serving tasks may be stopped now, and how many more
// may be started beside those that there are.
func (s *service) weigh(slots []*api.Slot) {
	n := len(slots)
	out, extra, beside := 0, 0, 0
	wanted := map[string]bool{}
	for _, slot := range slots {
		wanted[slot.Id] = true
		living, serves := s.count(slot.Id)
		beside += max(living-1, 0)
		if !serves && (living > 0 || slot.Version != "" && !s.completed(slot)) {
			out++
		}
	}
	for _, id := range s.slotIDs {
		if wanted[id] {
			continue
		}
		living, serves := s.count(id)
		beside += living
		if serves {
			extra++
		}
	}
	s.spare = n - s.minAvailable(n) - out + extra
	s.surge = s.maxSurge(n) - beside
}

// completed says that a slot's newest task has done its work, and may.
func (s *service) completed(slot *api.Slot) bool {
	c := s.svc.Spec.Restart.GetCondition()
	return (c == "on-failure" || c == "none") && last(s.tasks[slot.Id]).GetStatus().GetState() == api.TaskState_TASK_STATE_COMPLETE
}

func (s *service) count(slot string) (living int, serves bool) {
	for _, t := range s.tasks[slot] {
		if live(t) {
			living++
			serves = serves || usable(t) && s.inRotation(t)
		}
	}
	return living, serves
}

// minAvailable of n slots: what is declared, else all but a batch.
func (s *service) minAvailable(n int) int {
	p := s.svc.Spec.GetUpdate()
	if p.GetMinAvailable() != "" {
		if least, err := spec.Amount(p.MinAvailable, n); err == nil {
			return min(least, n)
		}
		return n
	}
	parallelism := p.GetParallelism()
	if r := s.view.Rollout(s.svc.RolloutId); r != nil && r.Outcome == "" && r.Phase == "rollback" {
		parallelism = cmp.Or(s.svc.Spec.GetRollback().GetParallelism(), parallelism)
	}
	size, err := spec.BatchSize(parallelism, n)
	if err != nil {
		size = 1
	}
	return max(n-size, 0)
}

// maxSurge of n slots: what is declared, else as many again.
func (s *service) maxSurge(n int) int {
	text := s.svc.Spec.GetUpdate().GetMaxSurge()
	if text == "" {
		return n
	}
	most, err := spec.Amount(text, n)
	if err != nil {
		return 0
	}
	return max(most, 0)
}

// release stops a task if the service can spare it now, or must in any case;
// one that serves nobody always goes.
func (s *service) release(t *api.Task, why string, must bool) {
	switch {
	case !usable(t):
	case !s.serving(t):
		s.stop(t, why)
	case must || s.spare > 0:
		s.spare--
		s.stop(t, why)
	default:
		s.says(t, &api.Wait{Reason: "it stops once others of its service are ready again", Since: stamp(s.now)})
	}
}

// maySurge takes one of the tasks that may be started beside others.
func (s *service) maySurge(stays *api.Task) bool {
	if s.surge > 0 {
		s.surge--
		return true
	}
	s.says(stays, &api.Wait{Reason: fmt.Sprintf("its successor waits: max_surge is %s", cmp.Or(s.svc.Spec.GetUpdate().GetMaxSurge(), "100%")), Since: stamp(s.now)})
	return false
}

// surging says that a slot belongs to a surge of the rollout under way, or of
// one that waits for an operator.
func (s *service) surging(slot *api.Slot) bool {
	r := s.view.Rollout(s.svc.RolloutId)
	return slot.Group != "" && !slot.Removed && r != nil && r.Phase == "forward" && (slot.RolloutId == r.Id || strings.HasPrefix(slot.RolloutId, r.Id+"/")) &&
		(r.Outcome == "" || state.Halted(r))
}

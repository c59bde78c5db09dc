package script

import (
	"fmt"

	"orch/engine/api"
	"orch/engine/spec"
	"orch/engine/state"
)

// Bounds finds what an entry broke of what the engine keeps against any
// strategy: a task that serves is stopped only while min_available slots of
// its service go on serving; no more than max_surge tasks run beside the
// slots; and of no slot do two tasks of one version run.
func Bounds(v state.View, deltas []state.Delta) error {
	stopped := map[string][]*api.Task{} // by service
	for _, d := range deltas {
		before, _ := d.Before.(*api.Task)
		after, _ := d.After.(*api.Task)
		if before == nil || after == nil {
			continue
		}
		if serving(before) && before.Desired == api.TaskDesired_TASK_DESIRED_RUN && after.Desired == api.TaskDesired_TASK_DESIRED_STOP && !state.Ended(after.Status.GetState()) {
			stopped[after.ServiceId] = append(stopped[after.ServiceId], after)
		}
	}
	for _, svc := range v.Services() {
		if svc.Removed || v.Stack(svc.Stack).GetStopped() || svc.Spec.Mode == "job" {
			continue
		}
		for _, t := range append(stopped[svc.Id], nil) {
			if err := bounds(v, svc, t); err != nil {
				return fmt.Errorf("%s: %w", svc.Id, err)
			}
		}
	}
	return nil
}

func bounds(v state.View, svc *api.Service, stopped *api.Task) error {
	wanted, serve, beside := 0, 0, 0
	for _, slot := range v.SlotsOf(svc.Id) {
		regular := !slot.Removed && slot.Group == ""
		if regular {
			wanted++
		}
		ready := false
		versions, running := map[string]int{}, 0
		for _, t := range v.TasksOf(svc.Id) {
			if t.SlotId != slot.Id || state.Ended(t.Status.GetState()) || t.Hold {
				continue
			}
			running++
			ready = ready || serving(t) && t.Desired == api.TaskDesired_TASK_DESIRED_RUN
			if t.Desired == api.TaskDesired_TASK_DESIRED_RUN && v.Node(t.NodeId).GetStatus() == "up" {
				versions[t.Version]++
			}
		}
		for version, n := range versions {
			if n > 1 && svc.Spec.Update.GetOrder() == "stop-first" {
				return fmt.Errorf("%d tasks of %s run version %s", n, slot.Id, version)
			}
		}
		if ready {
			serve++
			if stopped != nil && stopped.SlotId == slot.Id {
				stopped = nil // another one of its slot serves
			}
		}
		if regular {
			running--
		}
		beside += max(running, 0)
	}
	policy := svc.Spec.GetUpdate()
	if policy.GetMaxSurge() != "" {
		if most, err := spec.Amount(policy.MaxSurge, wanted); err == nil && beside > most {
			return fmt.Errorf("%d tasks run beside %d slots, max_surge is %s", beside, wanted, policy.MaxSurge)
		}
	}
	if stopped == nil || policy.GetMinAvailable() == "" || svc.Spec.Mode == "replicated" && wanted != int(svc.Spec.Replicas) {
		return nil
	}
	if least, err := spec.Amount(policy.MinAvailable, wanted); err == nil && serve < min(least, wanted) {
		return fmt.Errorf("%s is stopped (%s) while only %d of %d serve, min_available is %s", stopped.Id, stopped.StopReason, serve, wanted, policy.MinAvailable)
	}
	return nil
}

func serving(t *api.Task) bool {
	return t.Status.GetState() == api.TaskState_TASK_STATE_RUNNING && t.Status.Ready
}

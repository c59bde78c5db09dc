package reconcile

import (
	"fmt"
	"strings"

	"orch/engine/api"
	"orch/engine/spec"
)

// lacks says what keeps a dependency from being met; "" when it is. A first
// attempt wants all of the other service, a restart only that it is there:
// one bad replica of a database must not keep its clients down.
func (s *service) lacks(d *api.Dependency, first bool) string {
	if s.ready == nil {
		s.ready = map[string]waiting{}
	}
	key := fmt.Sprint(d.Service, d.Condition, first)
	w, known := s.ready[key]
	if !known {
		w.text = s.dependency(d, first)
		s.ready[key] = w
	}
	return w.text
}

func (s *service) dependency(d *api.Dependency, first bool) string {
	other := s.view.Service(spec.ServiceID(s.svc.Stack, d.Service))
	switch {
	case other == nil || other.Removed:
		return "it isn't there"
	case other.Spec.Mode == "job":
		return jobLacks(other, d.Condition)
	}
	want := int(other.Spec.Replicas)
	if other.Spec.Mode == "global" {
		want = 0
		for _, slot := range s.view.SlotsOf(other.Id) {
			if !slot.Removed && slot.Group == "" {
				want++
			}
		}
	}
	have, why := 0, ""
	for _, t := range s.view.TasksOf(other.Id) {
		if !usable(t) {
			continue
		}
		started := t.Status.GetState() >= api.TaskState_TASK_STATE_STARTING
		if d.Condition == "started" && started || s.serving(t) {
			have++
		} else if why == "" {
			why = d.Service + strings.TrimPrefix(t.SlotId, other.Id) + " " + reason(t)
		}
	}
	if !first {
		want = min(want, 1)
	}
	switch {
	case other.Spec.Mode == "global" && want == 0 && len(s.nodes) > 0 && first:
		return "it has no task yet"
	case have >= want:
		return ""
	case why == "":
		why = "it has no task yet"
	}
	if want > 1 {
		return fmt.Sprintf("%d of %d are, %s", have, want, why)
	}
	return why
}

func jobLacks(job *api.Service, condition string) string {
	r := job.Run
	switch {
	case r == nil || r.Version != job.Version:
		return "it hasn't run yet"
	case r.Outcome == "succeeded" || condition == "started":
		return ""
	case r.Outcome == "failed":
		return "it failed: " + r.Reason
	}
	return "it is running"
}

// reason says in a few words how far a task is.
func reason(t *api.Task) string {
	if t.Wait != nil {
		return "waits: " + t.Wait.Reason
	}
	switch t.Status.GetState() {
	case api.TaskState_TASK_STATE_PENDING, api.TaskState_TASK_STATE_ASSIGNED:
		return "is being placed"
	case api.TaskState_TASK_STATE_PREPARING:
		return "is being prepared"
	case api.TaskState_TASK_STATE_STARTING:
		return "is starting"
	}
	return "isn't ready"
}

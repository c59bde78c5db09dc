package rollout

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"orch/engine/api"
)

// evaluate looks whether the open op has come to its end. If so it returns
// the op with its result, else when to look again.
func (s *step) evaluate(op *api.Op) (*api.Op, time.Time) {
	deadline := op.Deadline.AsTime()
	switch op.Kind {
	case "pause":
		if s.now.Before(deadline) {
			return nil, deadline
		}
		op = proto.CloneOf(op)
		s.end(op, true)
		return op, time.Time{}
	case "wait_healthy":
		return s.healthy(op, deadline)
	}
	op = proto.CloneOf(op)
	s.end(op, false)
	op.Reason = fmt.Sprintf("op %q can't be open", op.Kind)
	return op, time.Time{}
}

// healthy ends a wait once each of its slots serves the target version for
// the op's duration, one of them failed, or the deadline is past.
func (s *step) healthy(op *api.Op, deadline time.Time) (*api.Op, time.Time) {
	begun := s.began(op)
	wake := deadline
	failed := map[string]string{}
	waiting := map[string]string{}
	for _, id := range op.Slots {
		slot := s.view.Slot(id)
		if slot == nil || slot.Removed {
			continue // scaled down meanwhile
		}
		if why := s.failure(slot, begun); why != "" {
			failed[id] = why
			continue
		}
		t := s.task(id, s.target())
		if t == nil && s.through(id) {
			continue
		}
		if t == nil || t.Status.GetState() != api.TaskState_TASK_STATE_RUNNING || !t.Status.Ready {
			waiting[id] = "isn't ready" + because(t)
			continue
		}
		if at := t.Status.ReadySince.AsTime().Add(op.Duration.AsDuration()); s.now.Before(at) {
			waiting[id] = "isn't healthy for long enough"
			if at.Before(wake) {
				wake = at
			}
		}
	}
	switch {
	case len(waiting) == 0 && len(failed) == 0:
		op = proto.CloneOf(op)
		s.end(op, true)
	case len(failed) > 0 && (len(waiting) == 0 || s.tooMany(len(failed))):
		op = s.failedOp(op, failed, "")
	case !s.now.Before(deadline):
		for id, why := range waiting {
			failed[id] = why
		}
		op = s.failedOp(op, failed, "not healthy in time: ")
	default:
		return nil, wake
	}
	return op, time.Time{}
}

func (s *step) tooMany(failed int) bool {
	return float64(len(s.r.FailedTasks)+failed) > s.r.Policy.GetMaxFailureRatio()*float64(len(s.slots))
}

func (s *step) failedOp(op *api.Op, failed map[string]string, prefix string) *api.Op {
	op = proto.CloneOf(op)
	s.end(op, false)
	for id := range failed {
		op.Failed = append(op.Failed, id)
	}
	slices.Sort(op.Failed)
	op.Reason = prefix + describe(failed)
	return op
}

// began is when the batch that op waits for was replaced.
func (s *step) began(op *api.Op) time.Time {
	for i := len(s.r.Journal) - 1; i >= 0; i-- {
		if j := s.r.Journal[i]; j.Kind == "replace" && j.Seq < op.Seq {
			return j.BegunAt.AsTime()
		}
	}
	return op.BegunAt.AsTime()
}

// failure says how a task of the target version came to its end in the slot
// since then; a node's loss is not the version's fault.
func (s *step) failure(slot *api.Slot, since time.Time) string {
	for _, t := range s.tasks[slot.Id] {
		if t.Version != s.target() || t.CreatedAt.AsTime().Before(since) {
			continue
		}
		switch t.Status.GetState() {
		case api.TaskState_TASK_STATE_COMPLETE:
			if !s.mayComplete() {
				return "ended by itself: " + cmp.Or(t.Status.Message, "exited with code 0")
			}
		case api.TaskState_TASK_STATE_FAILED:
			return "failed: " + cmp.Or(t.Status.Message, fmt.Sprintf("exited with code %d", t.Status.ExitCode))
		}
	}
	return ""
}

// mayComplete says that an end with exit 0 is what the tasks are for.
func (s *step) mayComplete() bool {
	c := s.svc.Spec.Restart.GetCondition()
	return c == "on-failure" || c == "none"
}

// through says that the slot's newest task has done its work.
func (s *step) through(slot string) bool {
	var newest *api.Task
	for _, t := range s.tasks[slot] {
		if newest == nil || t.Attempt > newest.Attempt {
			newest = t
		}
	}
	return s.mayComplete() && newest.GetVersion() == s.target() && newest.GetStatus().GetState() == api.TaskState_TASK_STATE_COMPLETE
}

func because(t *api.Task) string {
	switch {
	case t == nil:
		return ": it has no task yet"
	case t.Wait != nil:
		return ": " + t.Wait.Reason
	case t.Status.GetMessage() != "":
		return ": " + t.Status.Message
	case t.Status.GetState() == api.TaskState_TASK_STATE_PREPARING:
		return ": it is still being prepared"
	case t.Status.GetState() == api.TaskState_TASK_STATE_STARTING:
		return ": it is still starting"
	}
	return ""
}

package reconcile

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/robfig/cron/v3"
	"google.golang.org/protobuf/proto"

	"orch/engine/api"
	"orch/engine/state"
)

// job runs a job's completions, once a version or by its schedule.
func (s *service) job() {
	run := s.svc.Run
	if run == nil || run.Outcome != "" {
		if !s.due() {
			for _, id := range s.slotIDs {
				s.stopOthers(id, run.GetNumber(), "its run has ended")
			}
			return
		}
		run = &api.JobRun{Number: run.GetNumber() + 1, Version: s.svc.Version, StartedAt: stamp(s.now)}
		if d := s.svc.Spec.Job.GetTimeout().AsDuration(); d > 0 {
			run.Deadline = stamp(s.now.Add(d))
		}
		s.Changes.Services = append(s.Changes.Services, &api.ServiceChange{Id: s.svc.Id, Run: run})
	}
	if run.Version != s.svc.Version {
		s.endRun(run, "failed", "a newer version came")
		return
	}
	if d := run.Deadline; d != nil {
		if !s.now.Before(d.AsTime()) {
			s.endRun(run, "failed", fmt.Sprintf("it took longer than its timeout of %s", s.svc.Spec.Job.Timeout.AsDuration()))
			return
		}
		s.wakeAt(d.AsTime())
	}
	s.completions(run)
	for _, id := range s.slotIDs {
		if !s.completion(id) { // fewer are wanted, or it was no job
			s.vacate(s.slot[id])
		}
	}
}

// completion says whether a slot is one of those that the job fills.
func (s *service) completion(id string) bool {
	n, err := strconv.Atoi(s.slot[id].Key)
	return err == nil && n >= 1 && n <= int(max(s.svc.Spec.Job.GetCompletions(), 1))
}

// due says whether a run has to begin.
func (s *service) due() bool {
	run, schedule := s.svc.Run, s.svc.Spec.Job.GetSchedule()
	if s.svc.Spec.Job.GetOnDemand() || s.awaitsTurn() != "" {
		return false
	}
	if schedule == "" {
		return run == nil || run.Version != s.svc.Version
	}
	next, err := NextRun(s.svc)
	if err != nil {
		return false // refused when it was declared
	}
	if s.now.Before(next) {
		s.wakeAt(next)
		return false
	}
	return true
}

// NextRun is when a scheduled job runs next, in UTC. A run that falls due
// while the one before is under way is left out.
func NextRun(svc *api.Service) (time.Time, error) {
	schedule, err := cron.ParseStandard(svc.Spec.Job.GetSchedule())
	if err != nil {
		return time.Time{}, err
	}
	from := svc.CreatedAt.AsTime()
	if svc.Run != nil {
		from = svc.Run.StartedAt.AsTime()
		if e := svc.Run.EndedAt; e != nil && e.AsTime().After(from) {
			from = e.AsTime()
		}
	}
	return schedule.Next(from.UTC()), nil
}

func (s *service) completions(run *api.JobRun) {
	policy := s.svc.Spec.Job
	want, done, under := int(max(policy.GetCompletions(), 1)), 0, 0
	most := int(max(policy.GetParallelism(), 1))
	var open []*api.Slot
	for i := range want {
		key := strconv.Itoa(i + 1)
		id := state.SlotID(s.svc.Id, key)
		slot := s.slot[id]
		if slot == nil || slot.Run != run.Number || slot.Version != run.Version {
			slot = &api.Slot{Id: id, ServiceId: s.svc.Id, Key: key, Version: run.Version, Run: run.Number, Attempts: slot.GetAttempts()}
			s.Changes.PutSlots = append(s.Changes.PutSlots, slot)
		}
		s.stopOthers(id, run.Number, "a newer run began")
		complete, running, failed := s.attempts(id, run.Number)
		switch {
		case slices.ContainsFunc(s.tasks[id], func(t *api.Task) bool { return live(t) && t.Run != run.Number }):
			// Never two tasks of one slot: what is being stopped comes first.
		case complete:
			done++
		case running != nil:
			under++
			if running.NodeId == "" {
				s.pending(slot, running)
			}
			s.loseIfNodeIsGone(running)
		case len(failed) > int(policy.GetRetries()):
			s.endRun(run, "failed", fmt.Sprintf("%s failed: %s", plural(len(failed), "attempt"), last(failed).Status.GetMessage()))
			return
		default:
			open = append(open, slot)
		}
	}
	if done == want {
		s.endRun(run, "succeeded", "")
		return
	}
	for _, slot := range open {
		if under == most {
			return
		}
		under++
		s.attempt(slot)
	}
}

// attempts sums up a slot's tasks of one run.
func (s *service) attempts(slot string, run uint64) (complete bool, running *api.Task, failed []*api.Task) {
	for _, t := range s.tasks[slot] {
		switch {
		case t.Run != run:
		case live(t):
			running = t
		case t.Status.GetState() == api.TaskState_TASK_STATE_COMPLETE:
			complete = true
		case t.Status.GetState() == api.TaskState_TASK_STATE_FAILED:
			failed = append(failed, t)
		}
	}
	return complete, running, failed
}

func (s *service) stopOthers(slot string, run uint64, why string) {
	for _, t := range s.tasks[slot] {
		if live(t) && (t.Run != run || why == "its run has ended") {
			s.stop(t, why)
			s.loseIfNodeIsGone(t)
		}
	}
}

func (s *service) endRun(run *api.JobRun, outcome, reason string) {
	run = proto.CloneOf(run)
	run.Outcome, run.Reason, run.EndedAt = outcome, reason, stamp(s.now)
	s.Changes.Services = append(s.Changes.Services, &api.ServiceChange{Id: s.svc.Id, Run: run})
	s.wakeAt(s.now)
}

package rollout

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"orch/engine/api"
	"orch/engine/spec"
	"orch/engine/state"
)

// healthyWithin bounds each wait for a batch, beside what the policy's
// monitor and the health check's start period ask for.
const healthyWithin = 5 * time.Minute

// Step moves r on as far as one log entry can. It returns nil when there is
// nothing to do until wake (zero: until something changes).
func Step(v state.View, r *api.Rollout, strategy Strategy, now time.Time) (advance *api.RolloutAdvance, wake time.Time) {
	svc := v.Service(r.ServiceId)
	if r.Outcome != "" || svc == nil || svc.Removed || svc.RolloutId != r.Id || v.Stack(svc.Stack).GetStopped() {
		return nil, time.Time{}
	}
	s := &step{view: v, r: r, svc: svc, now: now, out: &api.RolloutAdvance{Id: r.Id, Generation: r.Generation, Seq: uint64(len(r.Journal))}}
	s.load()
	if open := s.open(); open != nil {
		ended, wake := s.evaluate(open)
		if ended == nil {
			return nil, wake
		}
		s.out.End = ended
		s.countFailures(ended)
	}
	journal := s.journal()
	var op *api.Op
	var err error
	if r.Phase == "rollback" {
		op = s.rollback(journal)
	} else {
		op, err = strategy.Next(s.context(), journal)
	}
	if err != nil {
		s.out.Outcome, s.out.Reason = "needs_operator", err.Error()
		return s.out, time.Time{}
	}
	s.begin(op)
	return s.out, time.Time{}
}

type step struct {
	view  state.View
	r     *api.Rollout
	svc   *api.Service
	slots []*api.Slot            // that are wanted, in order
	tasks map[string][]*api.Task // by slot
	now   time.Time
	out   *api.RolloutAdvance
}

func (s *step) load() {
	for _, slot := range s.view.SlotsOf(s.svc.Id) {
		if !slot.Removed {
			s.slots = append(s.slots, slot)
		}
	}
	sortSlots(s.slots)
	s.tasks = map[string][]*api.Task{}
	for _, t := range s.view.TasksOf(s.svc.Id) {
		s.tasks[t.SlotId] = append(s.tasks[t.SlotId], t)
	}
}

func (s *step) open() *api.Op {
	if n := len(s.r.Journal); n > 0 && s.r.Journal[n-1].EndedAt == nil {
		return s.r.Journal[n-1]
	}
	return nil
}

// journal is as it will be once the open op has ended.
func (s *step) journal() []*api.Op {
	j := s.r.Journal
	if s.out.End != nil {
		j = append(slices.Clone(j[:len(j)-1]), s.out.End)
	}
	return j
}

func (s *step) target() string {
	if s.r.Phase == "rollback" {
		return s.r.FromVersion
	}
	return s.r.ToVersion
}

func (s *step) context() Context {
	c := Context{Policy: s.r.Policy, Slots: len(s.slots), Remaining: s.remaining(), Failed: len(s.r.FailedTasks)}
	if len(s.out.FailedTasks) > 0 {
		c.Failed = len(s.out.FailedTasks)
	}
	for _, slot := range s.slots {
		c.All = append(c.All, slot.Id)
		if slot.Version == s.target() && (slot.RolloutId == s.r.Id || s.r.ToVersion != s.r.FromVersion) {
			c.Unproven = append(c.Unproven, slot.Id)
		}
	}
	return c
}

// remaining slots should run the target, and don't.
func (s *step) remaining() []*api.Slot {
	var all []*api.Slot
	for _, slot := range s.slots {
		if slot.Version != s.target() {
			all = append(all, slot)
		}
	}
	return all
}

// countFailures remembers the slots that failed, each once.
func (s *step) countFailures(op *api.Op) {
	all := slices.Clone(s.r.FailedTasks)
	for _, slot := range op.Failed {
		if !slices.Contains(all, slot) {
			all = append(all, slot)
		}
	}
	s.out.FailedTasks = all
}

// begin journals op, with the change that it makes. Ops that wait for
// nothing end with the entry that begins them.
func (s *step) begin(op *api.Op) {
	op = proto.CloneOf(op)
	op.Seq = s.out.Seq
	op.BegunAt = timestamppb.New(s.now)
	switch op.Kind {
	case "replace":
		s.replace(op)
	case "wait_healthy":
		op.Deadline = timestamppb.New(s.now.Add(healthyWithin + op.Duration.AsDuration() + s.startPeriod()))
	case "pause":
		op.Deadline = timestamppb.New(s.now.Add(op.Duration.AsDuration()))
	case "succeed":
		s.end(op, true)
		s.out.Outcome = "succeeded"
		if s.r.Phase == "rollback" {
			s.out.Outcome = "rolled_back"
		}
	case "fail":
		s.end(op, true)
		s.fail(op)
	default:
		s.out.Outcome, s.out.Reason = "needs_operator", fmt.Sprintf("the strategy asked for an unknown op %q", op.Kind)
		return
	}
	s.out.Begin = op
}

func (s *step) end(op *api.Op, ok bool) {
	op.Ok, op.EndedAt = ok, timestamppb.New(s.now)
}

func (s *step) replace(op *api.Op) {
	chosen := map[string]bool{}
	for _, id := range op.Slots {
		chosen[id] = true
	}
	for _, slot := range s.slots {
		if chosen[slot.Id] {
			slot = proto.CloneOf(slot)
			slot.Version, slot.Order, slot.RolloutId = s.target(), op.Order, s.r.Id
			s.out.Slots = append(s.out.Slots, slot)
		}
	}
	s.end(op, true)
}

func (s *step) fail(op *api.Op) {
	s.out.Reason = op.Reason
	switch {
	case s.r.Phase == "rollback":
		s.out.Outcome = "paused"
		if op.Policy == "rollback" { // there is nothing further back
			s.out.Outcome = "failed"
		}
		s.out.Reason = "the rollback failed too: " + op.Reason
	case op.Policy == "rollback" && s.r.FromVersion != "" && s.r.FromVersion != s.r.ToVersion:
		s.out.Phase = "rollback"
	default:
		s.out.Outcome = "paused"
	}
}

// rollback takes slots back to the old version: first, all at once, those
// where the new one doesn't serve; then the rest in the policy's batches.
func (s *step) rollback(journal []*api.Op) *api.Op {
	policy := s.svc.Spec.GetRollback() // the service is at its old spec by now
	if policy == nil {
		policy = &api.RolloutPolicy{Parallelism: s.svc.Spec.GetUpdate().GetParallelism(), Order: s.svc.Spec.GetUpdate().GetOrder()}
	}
	remaining := s.remaining()
	if n := len(journal); n > 0 {
		switch last := journal[n-1]; {
		case last.Kind == "replace":
			return &api.Op{Kind: "wait_healthy", Slots: last.Slots, Duration: policy.GetMonitor()}
		case last.Kind == "wait_healthy" && !last.Ok && policy.OnFailure != "continue":
			return &api.Op{Kind: "fail", Policy: cmp.Or(policy.OnFailure, "pause"), Reason: last.Reason}
		case last.Kind == "wait_healthy" && len(remaining) > 0 && policy.Delay.AsDuration() > 0:
			return &api.Op{Kind: "pause", Duration: policy.Delay}
		}
	}
	if len(remaining) == 0 {
		var touched []string
		for _, slot := range s.slots {
			if slot.RolloutId == s.r.Id {
				touched = append(touched, slot.Id)
			}
		}
		if unseen := unwaited(touched, journal[s.rollbackStart(journal):]); len(unseen) > 0 {
			return &api.Op{Kind: "wait_healthy", Slots: unseen, Duration: policy.GetMonitor()}
		}
		return &api.Op{Kind: "succeed", Reason: s.r.Reason}
	}
	op := &api.Op{Kind: "replace", Order: cmp.Or(policy.Order, "start-first")}
	for _, slot := range remaining {
		if !s.serves(slot, s.r.ToVersion) {
			op.Slots = append(op.Slots, slot.Id)
		}
	}
	if len(op.Slots) > 0 {
		return op
	}
	size, err := spec.BatchSize(policy.GetParallelism(), len(s.slots))
	if err != nil {
		size = 1
	}
	for _, slot := range remaining[:min(size, len(remaining))] {
		op.Slots = append(op.Slots, slot.Id)
	}
	return op
}

// rollbackStart is where in the journal the rollback's ops begin.
func (s *step) rollbackStart(journal []*api.Op) int {
	for i := len(journal) - 1; i >= 0; i-- {
		if journal[i].Kind == "fail" {
			return i + 1
		}
	}
	return 0
}

func (s *step) serves(slot *api.Slot, version string) bool {
	t := s.task(slot.Id, version)
	return t != nil && t.Status.GetState() == api.TaskState_TASK_STATE_RUNNING && t.Status.Ready
}

// task is the slot's newest that isn't over, of that version.
func (s *step) task(slot, version string) *api.Task {
	var newest *api.Task
	for _, t := range s.tasks[slot] {
		if t.Version == version && !state.Ended(t.Status.GetState()) &&
			t.Desired == api.TaskDesired_TASK_DESIRED_RUN && (newest == nil || t.Attempt > newest.Attempt) {
			newest = t
		}
	}
	return newest
}

func (s *step) startPeriod() time.Duration {
	v := s.view.Version(s.svc.Id, s.target())
	return v.GetTask().GetHealth().GetStartPeriod().AsDuration()
}

func describe(failed map[string]string) string {
	var all []string
	for slot, why := range failed {
		all = append(all, slot+" "+why)
	}
	slices.Sort(all)
	if n := len(all); n > 3 {
		all = append(all[:3], fmt.Sprintf("and %d more", n-3))
	}
	return strings.Join(all, "; ")
}

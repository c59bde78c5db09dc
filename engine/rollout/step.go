package rollout

import (
	"cmp"
	"errors"
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

// World is what a rollout asks beside the state.
type World struct {
	Strategy Strategy
	Prober   Prober
}

// Step moves r on as far as one log entry can. It returns nil when there is
// nothing to do until wake (zero: until something changes).
func Step(v state.View, r *api.Rollout, w World, now time.Time) (advance *api.RolloutAdvance, wake time.Time) {
	svc := v.Service(r.ServiceId)
	if r.Outcome != "" || svc == nil || svc.Removed || svc.RolloutId != r.Id || v.Stack(svc.Stack).GetStopped() || held(v, r) {
		return nil, time.Time{}
	}
	s := &step{view: v, r: r, svc: svc, world: w, now: now, out: &api.RolloutAdvance{Id: r.Id, Generation: r.Generation, Seq: uint64(len(r.Journal))}}
	s.load()
	if r.Deadline != nil && !now.Before(r.Deadline.AsTime()) {
		s.expire()
		return s.out, time.Time{}
	}
	if open := s.open(); open != nil {
		wake := s.evaluate(open)
		switch {
		case s.out.Update != nil || s.out.Run != nil || len(s.out.Slots) > 0: // what comes next sees what this changed
			return s.out, time.Time{}
		case s.out.End == nil:
			return nil, s.sooner(wake)
		}
		s.countFailures(s.out.End)
	}
	op, err := s.next(s.journal())
	switch {
	case errors.Is(err, ErrPending):
		return nil, s.sooner(time.Time{})
	case err == nil && len(r.Journal) >= MaxOps && r.Phase != "rollback":
		err = fmt.Errorf("the strategy took more than %d ops; is there a loop that never ends?", MaxOps)
	}
	if err != nil {
		s.out.Outcome, s.out.Reason = "needs_operator", firstLine(err.Error())
		return s.out, time.Time{}
	}
	s.begin(op)
	return s.out, time.Time{}
}

// sooner is wake, or the rollout's deadline if that comes first.
func (s *step) sooner(wake time.Time) time.Time {
	if s.r.Deadline == nil {
		return wake
	}
	if limit := s.r.Deadline.AsTime(); wake.IsZero() || limit.Before(wake) {
		return limit
	}
	return wake
}

// firstLine leaves out what belongs into a terminal rather than a table.
func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}

// held says that the release has other services to bring through first.
func held(v state.View, r *api.Rollout) bool {
	if len(r.Journal) > 0 {
		return false
	}
	stack, name := spec.SplitServiceID(r.ServiceId)
	step := state.Step(v.Release(stack, r.Release), name)
	return step != nil && step.State != "begun" && r.Phase == "forward"
}

type step struct {
	view  state.View
	r     *api.Rollout
	svc   *api.Service
	world World
	slots []*api.Slot            // that are wanted, in order
	surge []*api.Slot            // beside them
	tasks map[string][]*api.Task // by slot
	now   time.Time
	out   *api.RolloutAdvance
}

func (s *step) load() {
	for _, slot := range s.view.SlotsOf(s.svc.Id) {
		switch {
		case slot.Removed:
		case slot.Group != "" && !s.mine(slot): // of a rollout before; reconcile empties it
		case slot.Group != "":
			s.surge = append(s.surge, slot)
		default:
			s.slots = append(s.slots, slot)
		}
	}
	sortSlots(s.slots)
	sortSlots(s.surge)
	s.tasks = map[string][]*api.Task{}
	for _, t := range s.view.TasksOf(s.svc.Id) {
		s.tasks[t.SlotId] = append(s.tasks[t.SlotId], t)
	}
}

// sortSlots orders by number, or by node for a global service.
func sortSlots(slots []*api.Slot) {
	slices.SortFunc(slots, func(a, b *api.Slot) int {
		return cmp.Or(cmp.Compare(len(a.Key), len(b.Key)), strings.Compare(a.Key, b.Key))
	})
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

// mark is what slots and tasks remember of the rollout that set their
// version; one that begins from its top counts failures anew.
func (s *step) mark() string {
	if s.r.Generation == 0 {
		return s.r.Id
	}
	return fmt.Sprintf("%s/%d", s.r.Id, s.r.Generation)
}

// mine says that this rollout set a slot's version.
func (s *step) mine(slot *api.Slot) bool {
	return slot.RolloutId == s.r.Id || strings.HasPrefix(slot.RolloutId, s.r.Id+"/")
}

// next is the op that comes after the journal.
func (s *step) next(journal []*api.Op) (*api.Op, error) {
	switch {
	case s.r.Phase == "rollback":
		return s.rollback(journal), nil
	case len(journal) == 0:
		return &api.Op{Kind: "begin", Engine: true}, nil
	}
	if op := s.jobs(journal, s.r.Policy.GetBefore()); op != nil {
		return op, nil
	}
	var op *api.Op
	var err error
	if s.r.From == nil {
		op = s.first(journal)
	} else {
		op, err = s.world.Strategy.Next(Question{Rollout: s.r, Journal: theirs(journal), Bundle: s.view.Bundle(s.r.BundleHash), ParamsJson: s.r.ParamsJson})
	}
	if err == nil && op.Kind == "succeed" {
		return s.finish(journal, op), nil
	}
	return op, err
}

// theirs are the ops that the strategy knows of: its own, and the beginning.
func theirs(journal []*api.Op) []*api.Op {
	own := slices.Clone(journal[:1])
	for _, op := range journal[1:] {
		if !op.Engine {
			own = append(own, op)
		}
	}
	return own
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

// expire ends a rollout whose time is up.
func (s *step) expire() {
	why := fmt.Sprintf("it took longer than its deadline (%s)", s.r.Deadline.AsTime().UTC().Format(time.RFC3339))
	if open := s.open(); open != nil {
		open = proto.CloneOf(open)
		if what, _, _ := Waits(s.view, s.r, s.now); what != "" {
			why += ": " + what
		}
		s.end(open, false)
		open.Reason = why
		s.out.End = open
	}
	s.begin(&api.Op{Kind: "fail", Policy: s.onFailure(), Reason: why, Engine: true})
}

// onFailure is what the engine itself does about a failure.
func (s *step) onFailure() string {
	if p := s.r.Policy.GetOnFailure(); p != "" && p != "continue" {
		return p
	}
	return "rollback"
}

// begin journals op, with the change that it makes. Ops that wait for
// nothing end with the entry that begins them.
func (s *step) begin(op *api.Op) {
	op = proto.CloneOf(op)
	op.Seq = s.out.Seq
	op.BegunAt = timestamppb.New(s.now)
	switch op.Kind {
	case "begin", "run", "check":
	case "replace":
		s.replace(op)
	case "surge":
		s.grow(op)
	case "adopt":
		s.adopt(op)
	case "drop":
		s.drop(op)
	case "wait_healthy":
		if op.Group != "" {
			for _, slot := range s.groupOf(op.Group) {
				op.Slots = append(op.Slots, slot.Id)
			}
			if len(op.Slots) == 0 {
				s.refuse(op, fmt.Sprintf("there is no surge %q", op.Group))
				break
			}
		}
		op.Deadline = timestamppb.New(s.now.Add(s.patience(op)))
	case "pause":
		op.Deadline = timestamppb.New(s.now.Add(op.Duration.AsDuration()))
	case "analyze":
		op.Deadline = timestamppb.New(s.now.Add(time.Duration(max(op.Count, 1)-1) * op.Interval.AsDuration()))
	case "wait_signal":
		if op.Timeout != nil {
			op.Deadline = timestamppb.New(s.now.Add(op.Timeout.AsDuration()))
		}
	case "event", "traffic":
		s.end(op, true)
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

// refuse ends an op that can't be done.
func (s *step) refuse(op *api.Op, why string) {
	s.end(op, false)
	op.Reason = why
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
	case op.Policy == "continue" || s.r.From == nil:
		s.out.Outcome = "failed"
	case op.Policy == "rollback" && s.r.FromVersion != s.r.ToVersion:
		s.out.Phase = "rollback"
	default:
		s.out.Outcome = "paused"
	}
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

func (s *step) serves(slot *api.Slot, version string) bool {
	return ready(s.task(slot.Id, version))
}

func ready(t *api.Task) bool {
	return t.GetStatus().GetState() == api.TaskState_TASK_STATE_RUNNING && t.Status.Ready
}

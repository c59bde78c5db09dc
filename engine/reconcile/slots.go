package reconcile

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"

	"google.golang.org/protobuf/proto"

	"orch/engine/api"
	"orch/engine/state"
)

// slots brings the set of slots to what is declared, then each slot.
func (s *service) slots() {
	wanted := map[string]bool{}
	keys := s.wantedKeys()
	slots := make([]*api.Slot, 0, len(keys))
	for _, key := range keys {
		id := state.SlotID(s.svc.Id, key)
		wanted[id] = true
		slot := s.slot[id]
		if slot == nil || slot.Removed {
			slot = s.newSlot(id, key, slot)
			s.Changes.PutSlots = append(s.Changes.PutSlots, slot)
		} else if slot.Version != s.svc.Version && s.settled() {
			slot = proto.CloneOf(slot) // an older plan overtook a release
			slot.Version = s.svc.Version
			s.Changes.PutSlots = append(s.Changes.PutSlots, slot)
		}
		slots = append(slots, slot)
	}
	var surge []*api.Slot
	for _, id := range s.slotIDs {
		if slot := s.slot[id]; !wanted[id] && s.surging(slot) {
			surge = append(surge, slot)
		}
	}
	s.weigh(slots)
	for _, slot := range surge {
		wanted[slot.Id] = true
		if living, _ := s.count(slot.Id); living == 0 {
			if s.surge <= 0 {
				continue // once others that run beside the slots are through
			}
			s.surge--
		}
		s.converge(slot)
	}
	for _, slot := range slots {
		s.converge(slot)
	}
	for _, id := range s.slotIDs {
		if !wanted[id] {
			s.vacate(s.slot[id])
		}
	}
	s.move(slots)
	s.unexplain()
}

func (s *service) wantedKeys() []string {
	var keys []string
	if s.svc.Spec.Mode == "global" {
		for _, n := range s.view.Nodes() {
			if s.eligible(n) {
				keys = append(keys, s.keyOn(n))
			}
		}
		return keys
	}
	for _, n := range s.numbers() {
		keys = append(keys, strconv.Itoa(n))
	}
	return keys
}

// eligible says whether a global service wants a task on n. A paused or down
// node keeps the one it has.
func (s *service) eligible(n *api.Node) bool {
	if n.Availability == "drain" || s.whyNot(n) != "" {
		return false
	}
	slot := s.slot[state.SlotID(s.svc.Id, s.keyOn(n))]
	return slot != nil && !slot.Removed || n.Availability == "active"
}

// keyOn is that of a global service's slot on n: one of two, since the task
// of a surge that was adopted took the place beside the old one.
func (s *service) keyOn(n *api.Node) string {
	other := state.OtherKey(n.Name)
	if slot := s.slot[state.SlotID(s.svc.Id, other)]; slot != nil && !slot.Removed && slot.Group == "" {
		return other
	}
	return n.Name
}

// newSlot begins at the version that is known to work while a rollout to
// another one isn't through.
func (s *service) newSlot(id, key string, old *api.Slot) *api.Slot {
	slot := &api.Slot{Id: id, ServiceId: s.svc.Id, Key: key, Version: s.svc.Version, Attempts: old.GetAttempts(), NodeId: old.GetNodeId()}
	// One that failed isn't gone on with: then it is what the service wants.
	if r := s.view.Rollout(s.svc.RolloutId); !s.settled() && r.Phase == "forward" && r.Outcome != "failed" {
		slot.Version = r.FromVersion
	}
	return slot
}

// settled says that no rollout is under way or waits for an operator.
func (s *service) settled() bool {
	r := s.view.Rollout(s.svc.RolloutId)
	return r == nil || r.Outcome == "succeeded" || r.Outcome == "rolled_back" || r.Outcome == "superseded"
}

// vacate empties a slot that is no longer declared. Its row stays, so that
// the ids of its tasks are never given again while the service lives; only
// that of a global service on a node which is gone goes too.
func (s *service) vacate(slot *api.Slot) {
	gone := true
	// A job serves nobody, and what may no longer be on its node goes.
	must := s.svc.Spec.Mode == "job" || s.svc.Spec.Mode == "global" && !s.covered(state.SlotNode(slot))
	for _, t := range s.tasks[slot.Id] {
		if live(t) {
			gone = false
			if !s.loseIfNodeIsGone(t) {
				s.release(t, "its slot is no longer wanted", must)
			}
		}
	}
	if !slot.Removed {
		slot = proto.CloneOf(slot)
		slot.Removed, slot.Group = true, ""
		s.Changes.PutSlots = append(s.Changes.PutSlots, slot)
	}
	if !gone {
		return
	}
	for _, t := range s.tasks[slot.Id] {
		s.Changes.DeleteTasks = append(s.Changes.DeleteTasks, t.Id)
	}
	if s.svc.Spec.Mode == "global" && !slices.ContainsFunc(s.view.Nodes(), func(n *api.Node) bool { return n.Name == state.SlotNode(slot) }) {
		s.Changes.DeleteSlots = append(s.Changes.DeleteSlots, slot.Id)
	}
}

// covered says that a global service still wants a task on the node of that
// name.
func (s *service) covered(name string) bool {
	for _, n := range s.nodes {
		if n.Name == name {
			return s.eligible(n)
		}
	}
	return false
}

// converge makes one slot run its version once.
func (s *service) converge(slot *api.Slot) {
	if slot.Version == "" {
		return // nothing runs before the rollout says so
	}
	var current *api.Task
	var others []*api.Task // live, to be replaced by current
	successor := s.successor(slot)
	for _, t := range s.tasks[slot.Id] {
		if !live(t) || s.loseIfNodeIsGone(t) {
			continue
		}
		s.awaitNode(t)
		if usable(t) && belongs(t, slot) && s.misplaced(t) == "" && (t.Move == "" || t == successor) {
			if current != nil {
				// Two of one version: the one that serves stays.
				if s.serving(current) && !s.serving(t) {
					t, current = current, t
				}
				others = append(others, current)
			}
			current = t
		} else {
			others = append(others, t)
		}
	}
	stays := s.best(others)
	for _, t := range others {
		if usable(t) && t != stays {
			s.stop(t, "a newer version came before it was needed")
		}
	}
	switch {
	case current != nil && current.Hold:
		s.handOver(slot, current, others)
	case current != nil:
		for _, t := range others {
			if s.inRotation(current) {
				if !s.onProbation(slot) || !s.serving(t) {
					s.stop(t, "replaced by "+current.Id)
				}
			} else if s.stopFirst(slot, others) {
				s.release(t, "replaced by "+current.Id, false)
			}
		}
		if current.NodeId == "" {
			s.pending(slot, current)
		}
	case len(others) > 0 && stays == nil:
		// A task that is being stopped blocks the slot as well: never two of
		// one slot but in a start-first replacement.
	case stays != nil && s.stopFirst(slot, others):
		if belongs(stays, slot) {
			s.leaving = append(s.leaving, leaving{slot, stays})
		} else {
			s.ahead(slot)
		}
	case len(others) > 1:
		// And never three: what is being stopped goes first.
	case stays != nil && !s.maySurge(stays):
	default:
		s.attempt(slot)
	}
}

// onProbation says that a rollout watches a slot's new task for a while: what
// it replaces serves on until then, so that going back restarts nothing.
func (s *service) onProbation(slot *api.Slot) bool {
	r := s.view.Rollout(s.svc.RolloutId)
	n := len(r.GetJournal())
	if n == 0 || r.Outcome != "" {
		return false
	}
	op := r.Journal[n-1]
	return op.Kind == "wait_healthy" && op.EndedAt == nil && op.Duration.AsDuration() > 0 && slices.Contains(op.Slots, slot.Id)
}

// best is the one of a slot's older tasks that stays until a newer one
// serves: one that serves, else the one that has come furthest.
func (s *service) best(ts []*api.Task) *api.Task {
	var b *api.Task
	for _, t := range ts {
		switch {
		case !usable(t):
		case b == nil, s.serving(t) && !s.serving(b), s.serving(t) == s.serving(b) && t.Status.GetState() > b.Status.GetState():
			b = t
		}
	}
	return b
}

// stopFirst says in which order others leave: as the rollout asked that set
// the slot's version, or, where they have that version already and only move
// away from their node, as the service is rolled.
func (s *service) stopFirst(slot *api.Slot, others []*api.Task) bool {
	order := slot.Order
	if order == "" || !slices.ContainsFunc(others, func(t *api.Task) bool { return t.Version != slot.Version }) {
		order = s.svc.Spec.Update.GetOrder()
	}
	return order == "stop-first"
}

// ahead makes the slot's next task, which gets all that it needs while the
// one before it serves, and starts once that one has stopped.
func (s *service) ahead(slot *api.Slot) {
	n := len(s.Changes.Create)
	s.attempt(slot)
	if len(s.Changes.Create) > n {
		s.Changes.Create[n].Hold = true
	}
}

// handOver stops the tasks before one that is prepared, or can't be while
// they take its room, and then lets it start.
func (s *service) handOver(slot *api.Slot, next *api.Task, others []*api.Task) {
	if len(others) == 0 {
		s.change(&api.TaskChange{Id: next.Id, ClearHold: true})
	}
	if next.NodeId == "" {
		s.pending(slot, next)
	}
	for _, t := range others {
		if next.Status.GetPreparedAt() != nil || next.NodeId == "" && next.Wait != nil && s.waitFor(slot, next) == nil || !s.stopFirst(slot, others) {
			s.release(t, "makes room for the next version", false)
		}
	}
}

// attempt makes the slot's next task, if it may have one.
func (s *service) attempt(slot *api.Slot) {
	if t := s.next(slot); t != nil {
		s.Changes.Create = append(s.Changes.Create, t)
		s.pending(slot, t)
	}
}

// next is the task that the slot would get now; nil: none.
func (s *service) next(slot *api.Slot) *api.Task {
	t := &api.Task{
		Id: state.TaskID(slot.Id, slot.Attempts+1), ServiceId: s.svc.Id, SlotId: slot.Id, Attempt: slot.Attempts + 1,
		Version: slot.Version, Desired: api.TaskDesired_TASK_DESIRED_RUN, RolloutId: slot.RolloutId,
		Status: &api.TaskStatus{State: api.TaskState_TASK_STATE_PENDING, StateSince: stamp(s.now)},
		Run:    slot.Run,
	}
	t.Status.TaskId = t.Id
	if prev := last(s.tasks[slot.Id]); prev != nil && belongs(prev, slot) && prev.RolloutId == t.RolloutId && !s.again(prev, t) {
		return nil
	}
	return t
}

// pending lets a task without a node go on, or says what it waits for.
func (s *service) pending(slot *api.Slot, t *api.Task) {
	wait := s.waitFor(slot, t)
	if wait == nil {
		s.Place = append(s.Place, t)
		return
	}
	s.explain(t, wait)
}

// explain puts the reason on the task. The since of the same kind of wait
// stays; a wait that says the same is not written again.
func (s *service) explain(t *api.Task, wait *api.Wait) {
	if old := t.Wait; old != nil {
		if old.Reason == wait.Reason {
			return
		}
		wait.Since = old.Since
	}
	if i := slices.IndexFunc(s.Changes.Create, func(c *api.Task) bool { return c.Id == t.Id }); i >= 0 {
		s.Changes.Create[i].Wait = wait
		return
	}
	s.change(&api.TaskChange{Id: t.Id, Wait: wait})
}

func last(ts []*api.Task) *api.Task {
	if len(ts) == 0 {
		return nil
	}
	return ts[len(ts)-1]
}

func sortByAttempt(ts []*api.Task) {
	slices.SortFunc(ts, func(a, b *api.Task) int { return cmp.Compare(a.Attempt, b.Attempt) })
}

func sortChanges(c *api.Changes) {
	slices.SortStableFunc(c.Change, func(a, b *api.TaskChange) int { return cmp.Compare(a.Id, b.Id) })
}

func plural(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}

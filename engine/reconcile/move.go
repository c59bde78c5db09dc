package reconcile

import (
	"fmt"

	"orch/engine/api"
	"orch/engine/spec"
)

// Move is a task that should leave its node, once another node has been found
// for it. Until then it stays: a drained node, a label that went or a wish to
// balance is no reason to serve less.
//
// A task that may not run twice (stop-first) is stopped then, and the slot's
// next task starts elsewhere. Any other one is replaced first; for one that
// *must* go (its node is drained or fails a constraint) this is an ordinary
// replacement in Changes, which says itself why it waits. So a Move is either
// a stop-first task that must go, or the wish of Task.move.
//
// A wish is carried out only while nodes are used more alike then, one task of
// a service at a time and only while all its slots serve. An old wish does no
// harm, and what fits nowhere better stays: the wish ends with its task, or
// with an attempt to carry it out that failed.
type Move struct {
	From      *api.Task // as it is
	Task      *api.Task // the slot's next one, not in Changes
	Why       string
	StopFirst bool
	Wish      bool
	Free      bool // it serves nobody: Plan.Spare needn't be spent
}

// leaving is a stop-first task that must leave its node.
type leaving struct {
	slot *api.Slot
	task *api.Task
}

// move lists the tasks that may leave their nodes, and how many of them now:
// as many as the service can spare, and of wishes one.
func (s *service) move(slots []*api.Slot) {
	if len(s.leaving) == 0 && !s.wished {
		return
	}
	calm := s.calm(slots)
	s.Spare = max(s.spare, 0)
	for _, l := range s.leaving {
		if s.nodes[l.task.NodeId].GetStatus() == "down" {
			continue // nobody there to stop it; soon it is lost
		}
		m := Move{From: l.task, Task: s.next(l.slot), Why: s.misplaced(l.task), StopFirst: true, Free: !s.serving(l.task)}
		held := ""
		if m.Task == nil {
			held = "it would not be started again"
		} else if w := s.waitFor(l.slot, m.Task); w != nil {
			held = "its successor " + w.Reason
		}
		if held != "" {
			s.says(l.task, &api.Wait{Reason: m.Why + ": " + held, Since: stamp(s.now)})
			continue
		}
		s.explains[l.task.Id] = true // by whoever looks for a node
		s.Moves = append(s.Moves, m)
	}
	if s.wished && calm && s.settled() {
		s.Spare = 1
		s.wish(slots)
	}
}

// calm says that each slot has one task that serves, or has ended for good.
func (s *service) calm(slots []*api.Slot) bool {
	if len(s.Changes.Create) > 0 || len(s.leaving) > 0 {
		return false
	}
	for _, slot := range slots {
		n, serves := 0, false
		for _, t := range s.tasks[slot.Id] {
			if live(t) {
				n++
				serves = serves || usable(t) && s.serving(t)
			}
		}
		if n > 1 || n == 1 && !serves {
			return false
		}
	}
	return true
}

// wish plans for tasks that should run elsewhere, one of each node.
func (s *service) wish(slots []*api.Slot) {
	if s.svc.Spec.Mode != "replicated" {
		return
	}
	seen := map[string]bool{}
	for _, slot := range slots {
		var from *api.Task
		tried := false
		for _, t := range s.tasks[slot.Id] {
			if live(t) {
				from = t
			} else if from != nil {
				tried = tried || byItself(t)
			}
		}
		if from == nil || from.Move == "" || tried || seen[from.NodeId] {
			continue
		}
		next := s.next(slot)
		if next == nil || s.waitFor(slot, next) != nil {
			continue
		}
		seen[from.NodeId] = true
		s.Moves = append(s.Moves, Move{From: from, Task: next, Why: from.Move, StopFirst: s.stopFirst(slot, []*api.Task{from}), Wish: true})
	}
}

// successor is the newest task that can take a slot over from one that is
// wished away; nil: there is none, or no wish.
func (s *service) successor(slot *api.Slot) *api.Task {
	if !s.wished {
		return nil
	}
	all := s.tasks[slot.Id]
	for i := len(all) - 1; i >= 0; i-- {
		if t := all[i]; usable(t) && belongs(t, slot) && s.misplaced(t) == "" {
			return t
		}
	}
	return nil
}

// misplaced says why a task must leave its node; "": it needn't.
func (s *service) misplaced(t *api.Task) string {
	n := s.nodes[t.NodeId]
	switch {
	case n == nil:
		return ""
	case n.Availability == "drain":
		return fmt.Sprintf("node %q is drained", n.Name)
	}
	return s.whyNot(n)
}

// whyNot says which constraint a node fails; "": none.
func (s *service) whyNot(n *api.Node) string {
	why, known := s.unfit[n.Id]
	if !known {
		if text := spec.Fails(s.svc.Spec, n); text != "" {
			why = fmt.Sprintf("node %q fails %q", n.Name, text)
		}
		s.unfit[n.Id] = why
	}
	return why
}

// says puts a reason on a task that has its node.
func (s *service) says(t *api.Task, w *api.Wait) {
	if s.explains[t.Id] {
		return // the first reason in a plan is the one: two would take turns for ever
	}
	s.explains[t.Id] = true
	s.explain(t, w)
}

// unexplain takes waits away that no longer hold, from tasks that have their
// node.
func (s *service) unexplain() {
	for _, t := range s.explained {
		if !s.explains[t.Id] {
			s.change(&api.TaskChange{Id: t.Id, ClearWait: true})
		}
	}
}

// belongs says that a task is of its slot's version and run.
func belongs(t *api.Task, slot *api.Slot) bool { return t.Version == slot.Version && t.Run == slot.Run }

// serving says that a task has taken over: it runs and is in rotation, on a
// node that is there.
func (s *service) serving(t *api.Task) bool {
	return t.Status.GetState() == api.TaskState_TASK_STATE_RUNNING && t.Status.Ready && s.nodes[t.NodeId].GetStatus() != "down"
}

package schedule

import (
	"slices"
	"strings"

	"orch/engine/api"
	"orch/engine/spec"
	"orch/engine/state"
)

// Rebalance says which tasks of a stack ("" is all) to move so that nodes are
// used alike, by the scores of Place: first a service's tasks over its spread
// keys, then over nodes, then all tasks over nodes. A task moves only where
// the difference is more than one task, to a node that Place might have
// chosen; never one of a job or a global service, one with a local volume, or
// of a service whose rollout isn't through or whose slots have other than one
// serving task. Carried out, it has nothing more to say.
//
// Moves come by task id; From and To are names. Where a task really goes is
// decided when its turn comes.
func Rebalance(v state.View, stack string) []*api.Move {
	nodes := v.Nodes()
	r := &rebalancer{
		placer: newPlacer(nodes, v.Tasks(), Specs(v)),
		moves:  map[string]*api.Move{},
		at:     map[string]*candidate{},
	}
	var services []*movable
	for _, svc := range v.Services() {
		if stack == "" || svc.Stack == stack {
			if m := r.movable(v, svc); m != nil {
				services = append(services, m)
			}
		}
	}
	// A service's moves change what others see of the nodes: until none moves.
	for again := true; again; {
		again = false
		for _, m := range services {
			for r.step(m) {
				again = true
			}
		}
	}
	return r.sorted()
}

type rebalancer struct {
	*placer
	moves map[string]*api.Move
	at    map[string]*candidate // where a task was at first
}

// movable is a service whose tasks may move, with the tasks by their nodes.
type movable struct {
	svc  *api.Service
	spec *api.TaskSpec
	on   map[*candidate][]*api.Task
}

func (r *rebalancer) movable(v state.View, svc *api.Service) *movable {
	rollout := v.Rollout(svc.RolloutId)
	settled := rollout == nil || rollout.Outcome == "succeeded" || rollout.Outcome == "rolled_back" || rollout.Outcome == "superseded"
	if svc.Removed || svc.Spec.GetMode() != "replicated" || !settled || v.Stack(svc.Stack).GetStopped() || len(r.nodes) < 2 {
		return nil
	}
	m := &movable{svc: svc, spec: v.Version(svc.Id, svc.Version).GetTask(), on: map[*candidate][]*api.Task{}}
	if m.spec == nil || spec.LocalVolume(m.spec) != nil {
		return nil
	}
	slots := map[string]bool{}
	for _, t := range v.TasksOf(svc.Id) {
		switch {
		case state.Ended(t.Status.GetState()):
			continue
		case slots[t.SlotId]:
			return nil // a replacement is under way
		}
		slots[t.SlotId] = true
		c := r.byID[t.NodeId]
		serves := t.Status.GetState() == api.TaskState_TASK_STATE_RUNNING && t.Status.Ready && t.Desired == api.TaskDesired_TASK_DESIRED_RUN
		if c != nil && serves && t.Version == svc.Version && t.Run == 0 {
			m.on[c] = append(m.on[c], t)
		}
	}
	if len(m.on) == 0 {
		return nil
	}
	return m
}

// step moves one task of a service if that helps.
func (r *rebalancer) step(m *movable) bool {
	q := Request{Service: m.svc, Task: &api.Task{Version: m.svc.Version}, Spec: m.spec}
	fit := r.fitting(q, nil)
	room := roomFilters(q)
	var sources []*candidate
	for _, c := range fit {
		if len(m.on[c]) > 0 {
			sources = append(sources, c)
		}
	}
	moved := false
	for len(sources) > 0 {
		from, to := busiest(sources, fit, room)
		if to == nil {
			break
		}
		r.move(m, from, to)
		moved = true
		if len(m.on[from]) == 0 {
			sources = slices.DeleteFunc(sources, func(c *candidate) bool { return c == from })
		}
		if len(m.on[to]) == 1 {
			sources = append(sources, to)
		}
	}
	return moved
}

// busiest is the node to take a task from, and a better one for it; nil, nil:
// there is none. Without spread keys no node gains where the busiest doesn't.
func busiest(sources, fit []*candidate, room []filter) (from, to *candidate) {
	busier := func(a, b *candidate) int {
		if order := -without(nil, a, b); order != 0 {
			return order
		}
		return strings.Compare(a.Id, b.Id)
	}
	from = slices.MinFunc(sources, busier)
	if to = better(from, fit, room); to != nil || len(from.around) == 0 {
		return from, to
	}
	slices.SortFunc(sources, busier)
	for _, from = range sources[1:] {
		if to = better(from, fit, room); to != nil {
			return from, to
		}
	}
	return nil, nil
}

// move takes the last of a service's tasks from a node to another.
func (r *rebalancer) move(m *movable, from, to *candidate) {
	why := gain(m.svc.Id, m.svc.Spec.GetPlacement().GetSpread(), from, to)
	last := len(m.on[from]) - 1
	t := m.on[from][last]
	m.on[from] = m.on[from][:last]
	m.on[to] = append(m.on[to], t)
	r.give(from, t, m.spec)
	r.counted(from, -1)
	r.take(to, t.ServiceId, t.Id, m.spec)
	r.counted(to, 1)
	if r.at[t.Id] == nil {
		r.at[t.Id] = from
		r.moves[t.Id] = &api.Move{TaskId: t.Id, From: from.Name, Reason: why}
	}
	r.moves[t.Id].To = to.Name
	if r.at[t.Id] == to {
		delete(r.at, t.Id)
		delete(r.moves, t.Id)
	}
}

// give is the opposite of take.
func (p *placer) give(c *candidate, t *api.Task, s *api.TaskSpec) {
	c.total--
	p.perService[t.ServiceId][c.Id]--
	p.perSlot[t.ServiceId][c.Id]--
	if r := s.GetResources(); r != nil {
		c.cpus -= r.CpusMilli
		c.memory -= r.Memory
	}
	for _, port := range s.GetHostPorts() {
		c.ports[portKey(port)] = slices.DeleteFunc(c.ports[portKey(port)], func(o occupant) bool { return o.task == t.Id })
	}
}

func (r *rebalancer) sorted() []*api.Move {
	var all []*api.Move
	for _, m := range r.moves {
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b *api.Move) int { return strings.Compare(a.TaskId, b.TaskId) })
	return all
}

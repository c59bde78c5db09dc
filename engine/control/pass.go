package control

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"orch/engine/api"
	"orch/engine/reconcile"
	"orch/engine/release"
	"orch/engine/rollout"
	"orch/engine/schedule"
	"orch/engine/spec"
	"orch/engine/state"
)

// entrySize bounds the rows that one log entry changes.
const entrySize = 2000

// Pass is the outcome of looking at some services.
type Pass struct {
	Changes  []*api.Changes       // to be proposed in this order
	Wake     map[string]time.Time // per service, when to look again
	Unplaced []string             // services with tasks that no node fits
	Follows  []string             // services that wait for nodes to follow the endpoint table
}

// World is what a pass depends on beside the state.
type World struct {
	rollout.World
	Followed state.Followed
}

// Plan looks at the services named (unknown ones are passed over) as v shows
// them at now. It is pure, and empty at the fixpoint.
func Plan(v state.View, services []string, world World, now time.Time) Pass {
	p := planner{view: v, now: now, Pass: Pass{Wake: map[string]time.Time{}}, batch: &api.Changes{}}
	p.releases(services)
	for _, id := range services {
		svc := v.Service(id)
		if svc == nil {
			continue
		}
		if r := v.Rollout(svc.RolloutId); r != nil {
			advance, wake := rollout.Step(v, r, world.World, now)
			p.wake(id, wake)
			if advance != nil {
				p.batch.Rollouts = append(p.batch.Rollouts, advance)
				p.flush(false)
				p.Wake[id] = now // its slots change: look again after that
				continue
			}
		}
		plan := reconcile.Service(v, svc, world.Followed, now)
		p.wake(id, plan.Wake)
		if plan.Follows {
			p.Follows = append(p.Follows, id)
		}
		p.add(svc, plan)
	}
	p.place()
	p.forgetStacks()
	p.flush(true)
	return p.Pass
}

// releases moves the releases on that the services belong to.
func (p *planner) releases(services []string) {
	stack, names := "", []string(nil)
	ask := func() {
		if c := release.Plan(p.view, stack, names, p.now); c != nil {
			p.batch.Releases = append(p.batch.Releases, c)
		}
	}
	for i, id := range services { // sorted, so that those of a stack stand together
		of, name := spec.SplitServiceID(id)
		if i > 0 && of != stack {
			ask()
			names = names[:0]
		}
		stack, names = of, append(names, name)
	}
	if len(services) > 0 {
		ask()
	}
	for _, st := range p.view.Stacks() { // one that lost its last service
		if stack = st.Name; len(p.view.ServicesOf(stack)) == 0 {
			names = nil
			ask()
		}
	}
}

type planner struct {
	Pass
	view  state.View
	now   time.Time
	batch *api.Changes
	size  int
	plans []planned
	names map[string]string // node ids, when asked for
}

type planned struct {
	svc  *api.Service
	plan *reconcile.Plan
}

func (p *planner) wake(service string, at time.Time) {
	if at.IsZero() {
		return
	}
	if known, ok := p.Wake[service]; !ok || at.Before(known) {
		p.Wake[service] = at
	}
}

func (p *planner) add(svc *api.Service, plan *reconcile.Plan) {
	p.plans = append(p.plans, planned{svc, plan})
}

// place finds nodes for the tasks of all plans, then for those that should
// leave theirs, and puts the plans into entries.
func (p *planner) place() {
	var requests []schedule.Request
	var owner []int
	for i, pl := range p.plans {
		for _, t := range pl.plan.Place {
			requests = append(requests, p.request(pl.svc, t))
			owner = append(owner, i)
		}
	}
	urgent := len(requests)
	var moves []reconcile.Move
	for i, pl := range p.plans {
		for _, m := range pl.plan.Moves {
			r := p.request(pl.svc, m.Task)
			if m.Wish {
				r.Leave = m.From.NodeId
			}
			requests = append(requests, r)
			owner = append(owner, i)
			moves = append(moves, m)
		}
	}
	if len(requests) > 0 {
		decisions := schedule.Place(p.view.Nodes(), p.view.Tasks(), schedule.Specs(p.view), requests)
		for i, d := range decisions {
			if i >= urgent {
				p.move(p.plans[owner[i]], moves[i-urgent], d)
				continue
			}
			p.decide(p.plans[owner[i]], requests[i].Task, d)
			if d.Node != "" {
				p.pin(p.plans[owner[i]], requests[i], d.Node)
			}
		}
	}
	for _, pl := range p.plans {
		p.merge(pl.plan.Changes)
	}
}

// move lets a task leave its node if there is another one for it and its
// service can spare it now.
func (p *planner) move(pl planned, m reconcile.Move, d schedule.Decision) {
	reason := ""
	switch {
	case d.Node == "":
		p.homeless(pl.svc)
		reason = d.Reason
	case !m.Free && pl.plan.Spare == 0:
		reason = "it leaves once others of its service are ready again"
	case !m.Free:
		pl.plan.Spare--
	}
	c := pl.plan.Changes
	switch {
	case reason != "" && m.Wish: // nobody needs to know
	case reason != "":
		if reason = m.Why + ": " + reason; m.From.Wait.GetReason() != reason {
			c.Change = append(c.Change, &api.TaskChange{Id: m.From.Id, Wait: p.wait(m.From, reason)})
		}
	case m.StopFirst: // its room is free only then: the next one is placed again
		c.Change = append(c.Change, &api.TaskChange{Id: m.From.Id, Desired: api.TaskDesired_TASK_DESIRED_STOP, StopReason: m.Why, ClearWait: true})
	default:
		p.decide(pl, m.Task, d)
		c.Create = append(c.Create, m.Task)
	}
}

// homeless remembers a service to look at again when there is more room.
func (p *planner) homeless(svc *api.Service) {
	if n := len(p.Unplaced); n == 0 || p.Unplaced[n-1] != svc.Id {
		p.Unplaced = append(p.Unplaced, svc.Id)
	}
}

// wait is a reason for t, since the one that it replaces.
func (p *planner) wait(t *api.Task, reason string) *api.Wait {
	w := &api.Wait{Reason: reason, Since: timestamppb.New(p.now)}
	if t.Wait != nil {
		w.Since = t.Wait.Since
	}
	return w
}

// request pins tasks of global services, and those whose local volume is on
// the node of the slot's earlier task.
func (p *planner) request(svc *api.Service, t *api.Task) schedule.Request {
	r := schedule.Request{Task: t, Service: svc, Spec: p.view.Version(svc.Id, t.Version).GetTask()}
	if r.Spec == nil {
		r.Spec = svc.Spec.Task
	}
	if svc.Spec.Mode == "global" {
		r.Pin = p.nodeNamed(state.SlotNode(&api.Slot{Key: strings.TrimPrefix(t.SlotId, svc.Id+".")}))
		return r
	}
	if t.Hold {
		for _, old := range p.view.TasksOf(svc.Id) {
			if old.SlotId == t.SlotId && old.Id != t.Id && old.NodeId != "" && !state.Ended(old.Status.GetState()) {
				r.Instead, r.InsteadSpec = old, p.view.Version(svc.Id, old.Version).GetTask()
			}
		}
	}
	if t.Attempt > 1 {
		if prev := p.view.Task(state.TaskID(t.SlotId, t.Attempt-1)); prev.GetMove() != "" {
			r.Avoid = prev.NodeId
		}
	}
	if m := spec.LocalVolume(r.Spec); m != nil {
		if node := p.view.Slot(t.SlotId).GetNodeId(); node != "" && p.view.Node(node) != nil {
			r.Pin, r.PinWhy = node, fmt.Sprintf("its volume %q", m.Source)
		}
	}
	return r
}

// nodeNamed is the id of the node that a global service's slot is named after.
func (p *planner) nodeNamed(name string) string {
	if p.names == nil {
		p.names = map[string]string{}
		for _, n := range p.view.Nodes() {
			p.names[n.Name] = n.Id
		}
	}
	if id, ok := p.names[name]; ok {
		return id
	}
	return "none"
}

// pin remembers in the slot where its local volume is.
func (p *planner) pin(pl planned, r schedule.Request, node string) {
	if r.Service.Spec.Mode == "global" || spec.LocalVolume(r.Spec) == nil {
		return
	}
	for _, s := range pl.plan.Changes.PutSlots {
		if s.Id == r.Task.SlotId {
			s.NodeId = node // made in this plan
			return
		}
	}
	if s := p.view.Slot(r.Task.SlotId); s != nil && s.NodeId != node {
		s = proto.CloneOf(s)
		s.NodeId = node
		pl.plan.Changes.PutSlots = append(pl.plan.Changes.PutSlots, s)
	}
}

// decide puts a node, or the reason why there is none, on a task. A task
// that is made in this plan is the plan's own and can be changed.
func (p *planner) decide(pl planned, t *api.Task, d schedule.Decision) {
	fresh := p.view.Task(t.Id) == nil
	now := timestamppb.New(p.now)
	switch {
	case d.Node != "" && fresh:
		t.NodeId, t.Wait = d.Node, nil
		t.Status = &api.TaskStatus{TaskId: t.Id, State: api.TaskState_TASK_STATE_ASSIGNED, StateSince: now}
	case d.Node != "":
		pl.plan.Changes.Change = append(pl.plan.Changes.Change, &api.TaskChange{Id: t.Id, NodeId: d.Node})
	default:
		p.homeless(pl.svc)
		switch {
		case fresh:
			t.Wait = p.wait(t, d.Reason)
		case t.Wait.GetReason() != d.Reason:
			pl.plan.Changes.Change = append(pl.plan.Changes.Change, &api.TaskChange{Id: t.Id, Wait: p.wait(t, d.Reason)})
		}
	}
}

// merge puts c into entries. Slots go before their tasks; what belongs
// together by id may be spread over entries, since each is safe on its own.
func (p *planner) merge(c *api.Changes) {
	for _, s := range c.PutSlots {
		p.batch.PutSlots = append(p.batch.PutSlots, s)
		p.grow()
	}
	for _, t := range c.Create {
		p.batch.Create = append(p.batch.Create, t)
		p.grow()
	}
	for _, ch := range c.Change {
		p.batch.Change = append(p.batch.Change, ch)
		p.grow()
	}
	for _, id := range c.DeleteTasks {
		p.batch.DeleteTasks = append(p.batch.DeleteTasks, id)
		p.grow()
	}
	p.batch.DeleteSlots = append(p.batch.DeleteSlots, c.DeleteSlots...)
	p.batch.DeleteServices = append(p.batch.DeleteServices, c.DeleteServices...)
	p.batch.Services = append(p.batch.Services, c.Services...)
	p.size += len(c.DeleteSlots) + len(c.DeleteServices) + len(c.Services)
	p.flush(false)
}

func (p *planner) grow() {
	p.size++
	p.flush(false)
}

func (p *planner) flush(all bool) {
	if p.size >= entrySize || all && (p.size > 0 || len(p.batch.Rollouts)+len(p.batch.DeleteStacks)+len(p.batch.Releases) > 0) {
		p.Changes = append(p.Changes, p.batch)
		p.batch, p.size = &api.Changes{}, 0
	}
}

// forgetStacks deletes removed stacks whose last services go in this pass.
func (p *planner) forgetStacks() {
	going := map[string]bool{}
	for _, pl := range p.plans {
		for _, id := range pl.plan.Changes.DeleteServices {
			going[id] = true
		}
	}
	for _, st := range p.view.Stacks() {
		if st.Removed && !slices.ContainsFunc(p.view.ServicesOf(st.Name), func(s *api.Service) bool { return !going[s.Id] }) {
			p.batch.DeleteStacks = append(p.batch.DeleteStacks, st.Name)
		}
	}
}

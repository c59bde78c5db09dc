package reconcile

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"orch/engine/api"
	"orch/engine/state"
)

// Plan is what to do for one service.
type Plan struct {
	Changes *api.Changes
	// Place lists the tasks that may be given a node now: those among
	// Changes.Create, and older ones that still have none.
	Place []*api.Task
	// Moves lists the tasks that should leave their nodes, the first Spare of
	// those for which there is another one.
	Moves []Move
	Spare int
	// Wake is when to look again even if nothing changes; zero: never.
	Wake time.Time
	// Follows says that it depends on how far the nodes have followed the
	// endpoint table: look again when that changes.
	Follows bool
}

func (p *Plan) wakeAt(t time.Time) {
	if p.Wake.IsZero() || t.Before(p.Wake) {
		p.Wake = t
	}
}

func (p *Plan) stop(t *api.Task, why string) {
	if t.Desired != api.TaskDesired_TASK_DESIRED_STOP {
		p.change(&api.TaskChange{Id: t.Id, Desired: api.TaskDesired_TASK_DESIRED_STOP, StopReason: why})
	}
}

func (p *Plan) change(c *api.TaskChange) { p.Changes.Change = append(p.Changes.Change, c) }

// Service plans for svc as v shows it at now.
func Service(v state.View, svc *api.Service, followed state.Followed, now time.Time) *Plan {
	s := &service{Plan: &Plan{Changes: &api.Changes{}}, view: v, svc: svc, followed: followed, now: now}
	s.load()
	stack := v.Stack(svc.Stack)
	switch {
	case svc.Removed:
		if gone := s.stopAll("the service was removed"); gone && s.mayComeBack() {
			s.clear()
		} else if gone {
			s.forget()
		}
	case stack.GetStopped():
		if s.stopAll("the stack was stopped") {
			s.clear()
		}
	case svc.Spec.Mode == "job":
		s.job()
	default:
		s.slots()
	}
	s.drain()
	s.collect()
	return s.Plan
}

// service is one call's working set.
type service struct {
	*Plan
	view      state.View
	svc       *api.Service
	followed  state.Followed
	now       time.Time
	slotIDs   []string
	slot      map[string]*api.Slot
	tasks     map[string][]*api.Task // by slot, oldest attempt first
	nodes     map[string]*api.Node
	unfit     map[string]string  // nodes: why the service may not be there
	ready     map[string]waiting // of the dependencies, by which tasks ask
	leaving   []leaving
	spare     int // serving tasks that may be stopped
	surge     int // tasks that may be started beside others
	turn      *string
	wished    bool            // a task should move
	explained []*api.Task     // that have their node and a wait
	explains  map[string]bool // those whose wait this plan decides
}

func (s *service) load() {
	s.slot, s.tasks = map[string]*api.Slot{}, map[string][]*api.Task{}
	for _, slot := range s.view.SlotsOf(s.svc.Id) {
		s.slot[slot.Id] = slot
		s.slotIDs = append(s.slotIDs, slot.Id)
	}
	for _, t := range s.view.TasksOf(s.svc.Id) {
		s.tasks[t.SlotId] = append(s.tasks[t.SlotId], t)
		s.wished = s.wished || t.Move != "" && live(t)
		if t.Wait != nil && t.NodeId != "" && usable(t) {
			s.explained = append(s.explained, t)
		}
	}
	for _, ts := range s.tasks {
		sortByAttempt(ts)
	}
	s.nodes, s.unfit, s.explains = map[string]*api.Node{}, map[string]string{}, map[string]bool{}
	for _, n := range s.view.Nodes() {
		s.nodes[n.Id] = n
	}
}

// stopAll stops every task, those of services that depend on this one
// first, and says whether all are gone.
func (s *service) stopAll(why string) bool {
	for _, other := range s.view.ServicesOf(s.svc.Stack) {
		if (other.Removed || s.view.Stack(s.svc.Stack).GetStopped()) && dependsOn(other, s.svc.Name) && hasLive(s.view, other.Id) {
			return false
		}
	}
	gone := true
	for _, ts := range s.tasks {
		for _, t := range ts {
			if live(t) {
				gone = false
				s.stop(t, why)
				s.loseIfNodeIsGone(t)
			}
		}
	}
	sortChanges(s.Changes)
	return gone
}

func dependsOn(svc *api.Service, name string) bool {
	for _, d := range svc.Spec.DependsOn {
		if d.Service == name {
			return true
		}
	}
	return false
}

func hasLive(v state.View, service string) bool {
	for _, t := range v.TasksOf(service) {
		if live(t) {
			return true
		}
	}
	return false
}

// mayComeBack says that a removed service is taken back if the release that
// removes it fails.
func (s *service) mayComeBack() bool {
	r := s.view.Underway(s.svc.Stack)
	return state.Step(r, s.svc.Name).GetAction() == "remove" && !s.view.Stack(s.svc.Stack).GetRemoved()
}

// forget removes the rows of a removed service.
func (s *service) forget() {
	s.clear()
	s.Changes.DeleteServices = append(s.Changes.DeleteServices, s.svc.Id)
}

// clear forgets all tasks, so that their nodes keep nothing of them.
func (s *service) clear() {
	for _, id := range s.slotIDs {
		for _, t := range s.tasks[id] {
			s.Changes.DeleteTasks = append(s.Changes.DeleteTasks, t.Id)
		}
	}
}

// keptTasks ended ones of each slot stay for `orch ps --all` and logs, and as
// many as a limit on attempts has to count.
const keptTasks = 5

func (s *service) kept() int {
	return max(keptTasks, int(s.svc.Spec.Restart.GetMaxAttempts())+1, int(s.svc.Spec.Job.GetRetries())+1)
}

// collect forgets the oldest ended tasks of each slot.
func (s *service) collect() {
	if s.svc.Removed || s.view.Stack(s.svc.Stack).GetStopped() {
		return
	}
	kept := s.kept()
	for _, id := range s.slotIDs {
		if s.slot[id].Removed {
			continue // vacate does it
		}
		ended := 0
		for i := len(s.tasks[id]) - 1; i >= 0; i-- {
			if t := s.tasks[id][i]; !live(t) {
				if ended++; ended > kept {
					s.Changes.DeleteTasks = append(s.Changes.DeleteTasks, t.Id)
				}
			}
		}
	}
}

func live(t *api.Task) bool { return !state.Ended(t.Status.GetState()) }

// usable says that a task still counts for its slot.
func usable(t *api.Task) bool { return live(t) && t.Desired != api.TaskDesired_TASK_DESIRED_STOP }

// defaultReschedule is how long a node may be down before its tasks are
// replaced, unless their service says otherwise.
const defaultReschedule = 2 * time.Second

// rescheduleAfter is that for t. What is to stop anyway waits no longer than
// by default.
func (s *service) rescheduleAfter(t *api.Task) time.Duration {
	if d := s.svc.Spec.GetRescheduleAfter(); d != nil && usable(t) && !s.svc.Removed {
		return d.AsDuration()
	}
	return defaultReschedule
}

// loseIfNodeIsGone gives a task up whose node is removed or was down too long.
func (s *service) loseIfNodeIsGone(t *api.Task) bool {
	if t.NodeId == "" {
		return false
	}
	n := s.nodes[t.NodeId]
	switch {
	case n == nil:
		s.change(&api.TaskChange{Id: t.Id, Lost: true, Desired: api.TaskDesired_TASK_DESIRED_STOP, StopReason: "its node was removed"})
		return true
	case n.Status != "down":
		return false
	}
	if since := n.StatusSince.AsTime().Add(s.rescheduleAfter(t)); s.now.Before(since) {
		s.wakeAt(since)
		return false
	}
	s.change(&api.TaskChange{Id: t.Id, Lost: true, Desired: api.TaskDesired_TASK_DESIRED_STOP, StopReason: "node " + n.Name + " is down"})
	return true
}

// awaitNode says of a task on a node that is down how long it may yet come
// back, where the service asked for that.
func (s *service) awaitNode(t *api.Task) {
	if s.svc.Spec.GetRescheduleAfter() == nil || !usable(t) || s.nodes[t.NodeId].GetStatus() != "down" {
		return
	}
	n := s.nodes[t.NodeId]
	until := stamp(n.StatusSince.AsTime().Add(s.rescheduleAfter(t)))
	s.says(t, &api.Wait{Reason: fmt.Sprintf("node %q is down", n.Name), Since: n.StatusSince, Deadline: until})
}

func stamp(t time.Time) *timestamppb.Timestamp { return timestamppb.New(t) }

// Package status says in an operator's words how a stack and its services
// are, and why they aren't further. It is pure.
package status

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"orch/engine/api"
	"orch/engine/reconcile"
	"orch/engine/rollout"
	"orch/engine/spec"
	"orch/engine/state"
)

// crashLoop failures in a row, never having been ready, make a service count
// as failed for those who wait for it; it is retried all the same.
const crashLoop = 5

// Stack sums up a stack; nil if there is none.
func Stack(v state.View, name string, now time.Time) *api.StackStatus {
	st := v.Stack(name)
	if st == nil {
		return nil
	}
	out := &api.StackStatus{Stack: name, Release: st.Release, Stopped: st.Stopped, Removed: st.Removed, Converged: true}
	r := v.Release(name, st.Release)
	out.Outcome, out.Phase, out.Reason = r.GetOutcome(), r.GetPhase(), r.GetReason()
	for _, svc := range v.ServicesOf(name) {
		s := Service(v, svc, now)
		out.Converged = out.Converged && s.Converged
		out.Failed = out.Failed || s.Failed && !acts(r, v.Rollout(svc.RolloutId))
		out.Services = append(out.Services, s)
	}
	if st.Stopped || st.Removed {
		return out
	}
	switch out.Outcome {
	case "":
		out.Converged = false
		out.Failed = out.Failed && out.Phase == "forward"
	case "succeeded":
	default:
		out.Failed = true
	}
	return out
}

// acts says that the release will do something about a rollout that failed.
func acts(r *api.Release, ro *api.Rollout) bool {
	return r.GetOutcome() == "" && ro != nil && ro.Release == r.GetNumber() && (ro.Outcome == "rolled_back" || ro.Outcome == "failed")
}

// Service sums up one service.
func Service(v state.View, svc *api.Service, now time.Time) *api.ServiceStatus {
	s := summary{view: v, svc: svc, now: now, ServiceStatus: &api.ServiceStatus{
		Name: svc.Name, Mode: svc.Spec.Mode, Version: svc.Version, Release: svc.Release,
		Image: svc.Spec.GetTask().GetImage(), Runtime: svc.Spec.GetTask().GetRuntime(), Since: svc.UpdatedAt,
		Checked: svc.Spec.GetTask().GetHealth() != nil,
	}}
	s.rollout = v.Rollout(svc.RolloutId)
	s.down = map[string]*api.Node{}
	for _, n := range v.Nodes() {
		if n.Status == "down" {
			s.down[n.Id] = n
		}
	}
	s.Rollout = s.rollout
	for _, p := range svc.Spec.Ports {
		if p.Publish > 0 {
			s.Ports = append(s.Ports, p)
		}
	}
	s.count()
	s.judge()
	s.Warning = s.closed()
	return s.ServiceStatus
}

// closed says which of the service's published ports a node can't listen on.
func (s *summary) closed() string {
	var where []string
	text := ""
	for _, n := range s.view.Nodes() {
		for _, c := range n.GetFacts().GetPlane().GetClosed() {
			if s.down[n.Id] == nil && slices.ContainsFunc(s.Ports, func(p *api.PortSpec) bool {
				return p.Publish == c.Port && p.HostIp == c.HostIp && p.Protocol == c.Protocol
			}) {
				where = append(where, n.Name)
				text = fmt.Sprintf("%s is closed on %s: %s", api.PortText(c), strings.Join(where, ", "), c.Why)
				break
			}
		}
	}
	return text
}

type summary struct {
	*api.ServiceStatus
	view    state.View
	svc     *api.Service
	now     time.Time
	rollout *api.Rollout
	down    map[string]*api.Node // by id

	live, settled int
	completed     int
	gaveUp        string
	looping       string
	hands         string // which task another one takes over from
}

func (s *summary) count() {
	slots := s.view.SlotsOf(s.svc.Id)
	for _, slot := range slots {
		if !slot.Removed && slot.Group == "" {
			s.Want++
		}
	}
	switch s.svc.Spec.Mode {
	case "replicated":
		s.Want = s.svc.Spec.Replicas
	case "global":
		s.Want = max(s.Want, s.fitting())
	}
	if s.svc.Spec.Mode == "job" {
		s.Want = max(s.svc.Spec.Job.GetCompletions(), 1)
	}
	tasks := map[string][]*api.Task{}
	for _, t := range s.view.TasksOf(s.svc.Id) {
		tasks[t.SlotId] = append(tasks[t.SlotId], t)
	}
	slices.SortFunc(slots, func(a, b *api.Slot) int {
		return cmp.Or(cmp.Compare(len(a.Key), len(b.Key)), strings.Compare(a.Key, b.Key))
	})
	for _, slot := range slots {
		ts := tasks[slot.Id]
		slices.SortFunc(ts, func(a, b *api.Task) int { return cmp.Compare(a.Attempt, b.Attempt) })
		s.slot(slot, ts)
	}
	if s.svc.Spec.Mode != "job" {
		s.Ready += int32(s.completed)
	}
}

// fitting counts the nodes where a global service is to have a task, before
// it has a slot there.
func (s *summary) fitting() int32 {
	n := int32(0)
	for _, node := range s.view.Nodes() {
		if node.Availability == "active" && spec.Fits(s.svc.Spec, node) {
			n++
		}
	}
	return n
}

// slot adds one slot's tasks to the sums.
func (s *summary) slot(slot *api.Slot, tasks []*api.Task) {
	live, ready, up := 0, false, false
	for _, t := range tasks {
		st := t.Status
		if state.Ended(st.GetState()) {
			continue
		}
		live++
		if st.GetState() >= api.TaskState_TASK_STATE_STARTING && st.GetState() <= api.TaskState_TASK_STATE_RUNNING {
			s.Running++
		}
		if node := s.down[t.NodeId]; node != nil {
			if s.Reason == "" {
				s.Reason, s.Since, s.Deadline = fmt.Sprintf("node %q is down", node.Name), node.StatusSince, t.Wait.GetDeadline()
			}
		} else if serving(t) {
			up = true
			ready = ready || t.Version == slot.Version && slot.Version == s.svc.Version
		} else if s.Reason == "" && t.Desired == api.TaskDesired_TASK_DESIRED_RUN {
			s.Reason, s.Deadline = Reason(t), t.Wait.GetDeadline()
			if st.GetStateSince() != nil {
				s.Since = st.StateSince
			}
			if t.Wait != nil && t.Wait.Since != nil {
				s.Since = t.Wait.Since
			}
		}
		if t.Failures >= crashLoop && st.GetReadySince() == nil && s.looping == "" {
			s.looping = fmt.Sprintf("%s failed %d times in a row: %s", slot.Id, t.Failures, lastMessage(tasks))
		}
		if d := t.Wait.GetDeadline(); d != nil && t.NotBefore == nil && t.Version == slot.Version && t.Desired == api.TaskDesired_TASK_DESIRED_RUN && !s.now.Before(d.AsTime()) {
			s.looping = t.Wait.Reason
		}
	}
	s.live += live
	if up && !slot.Removed && slot.Group == "" {
		s.Ready++
	}
	if live == 1 && ready {
		s.settled++
	}
	for _, t := range tasks {
		if live > 1 && ready && s.hands == "" && t.Version != slot.Version && !state.Ended(t.Status.GetState()) && t.Desired == api.TaskDesired_TASK_DESIRED_RUN {
			s.hands = fmt.Sprintf("%s stops once every node sends what is new to its successor", t.Id)
		}
	}
	if live > 0 || len(tasks) == 0 {
		return
	}
	last := tasks[len(tasks)-1]
	policy := s.svc.Spec.Restart
	switch st := last.Status.GetState(); {
	case s.svc.Spec.Mode == "job":
		if st == api.TaskState_TASK_STATE_COMPLETE && last.Run == s.svc.Run.GetNumber() {
			s.completed++
		}
	case st == api.TaskState_TASK_STATE_COMPLETE && (policy.GetCondition() == "on-failure" || policy.GetCondition() == "none"):
		s.completed++
	case st == api.TaskState_TASK_STATE_FAILED && (policy.GetCondition() == "none" || reconcile.GaveUp(policy, tasks, last.Failures+1)):
		s.gaveUp = cmp.Or(s.gaveUp, fmt.Sprintf("%s is not restarted any more: %s", slot.Id, last.Status.Message))
	}
}

func lastMessage(tasks []*api.Task) string {
	for i := len(tasks) - 1; i >= 0; i-- {
		if t := tasks[i]; t.Status.GetState() == api.TaskState_TASK_STATE_FAILED {
			return t.Status.Message
		}
	}
	return "its reasons are no longer kept"
}

// judge puts the sums into a word and a reason.
func (s *summary) judge() {
	stack := s.view.Stack(s.svc.Stack)
	switch {
	case s.svc.Removed || stack.GetStopped():
		s.State, s.Converged, s.Reason = "stopping", false, fmt.Sprintf("waits for %d tasks to stop", s.live)
		if s.live == 1 {
			s.Reason = "waits for 1 task to stop"
		}
		if s.live == 0 {
			s.State, s.Converged, s.Reason = "stopped", !s.svc.Removed, ""
		}
		return
	case s.svc.Spec.Mode == "job":
		s.job()
		return
	case s.rollout != nil && s.rollout.Outcome == "":
		s.State = "updating"
		if s.rollout.Phase == "rollback" {
			s.State = "rolling back"
		}
		s.Reason, s.Since, s.Deadline = rollout.Waits(s.view, s.rollout, s.now)
		return
	case s.rollout != nil && s.rollout.Outcome != "succeeded" && s.rollout.Outcome != "superseded" && !s.past(stack):
		s.State, s.Failed = s.rollout.Outcome, true
		s.Reason = s.rollout.Reason
		return
	case s.gaveUp != "":
		s.State, s.Failed, s.Reason = "failed", true, s.gaveUp
		return
	}
	want := int(s.Want)
	if s.settled+s.completed == want && s.live == s.settled {
		s.State, s.Converged, s.Reason = "running", true, ""
		if s.completed == want && want > 0 {
			s.State = "completed"
		}
		return
	}
	switch {
	case s.looping != "":
		s.State, s.Failed, s.Reason = "failing", true, s.looping
	case s.settled+s.completed == want:
		s.State, s.Reason = "stopping", "tasks that are no longer wanted stop"
	case s.Ready > 0 && s.Ready < s.Want:
		s.State = "degraded"
	case s.Running == 0 && s.Ready == 0:
		s.State = "waiting"
	default:
		s.State = "starting"
	}
	if s.Reason == "" {
		s.Reason = cmp.Or(s.hands, "its tasks are being made")
	}
}

// past says that the rollout is over, and that releases came after its own:
// how it ended says nothing of them.
func (s *summary) past(stack *api.Stack) bool {
	return (s.rollout.Outcome == "rolled_back" || s.rollout.Outcome == "failed") && s.rollout.Release != stack.GetRelease()
}

func (s *summary) job() {
	r := s.svc.Run
	s.Running = int32(s.live)
	s.Ready = int32(s.completed)
	if s.svc.Spec.Job.GetOnDemand() { // its rollouts tell what comes of it
		defer func() { s.Converged, s.Failed = true, false }()
	}
	switch {
	case s.svc.Spec.Job.GetOnDemand() && r == nil:
		s.State, s.Reason = "idle", "runs when a rollout asks for it"
	case r == nil || r.Version != s.svc.Version && !s.svc.Spec.Job.GetOnDemand():
		s.State = "waiting"
		if s.svc.Spec.Job.GetSchedule() != "" {
			s.Converged = true
			s.State = "scheduled"
			if next, err := reconcile.NextRun(s.svc); err == nil {
				s.Reason = "runs next at " + next.UTC().Format(time.RFC3339)
			}
		}
	case r.Outcome == "succeeded":
		s.State, s.Converged, s.Reason = "completed", true, ""
	case r.Outcome == "failed":
		s.State, s.Failed, s.Reason = "failed", true, r.Reason
		s.Converged = s.svc.Spec.Job.GetSchedule() != "" // it runs again
		s.Failed = !s.Converged
	default:
		s.State = "running"
		if s.Running == 0 {
			s.State = "waiting"
		}
		s.Converged = s.svc.Spec.Job.GetSchedule() != ""
	}
}

func serving(t *api.Task) bool {
	return t.Status.GetState() == api.TaskState_TASK_STATE_RUNNING && t.Status.Ready
}

// Reason says why a task isn't ready.
func Reason(t *api.Task) string {
	st := t.Status
	switch {
	case serving(t):
		return ""
	case t.Wait != nil:
		return t.Wait.Reason
	case st.GetMessage() != "":
		return st.Message
	}
	switch st.GetState() {
	case api.TaskState_TASK_STATE_PENDING:
		return "waits for a node"
	case api.TaskState_TASK_STATE_ASSIGNED:
		return "waits for its node to take it up"
	case api.TaskState_TASK_STATE_PREPARING:
		return "is being prepared"
	case api.TaskState_TASK_STATE_STARTING:
		return "waits for its first good health check"
	case api.TaskState_TASK_STATE_RUNNING:
		return "is not ready"
	case api.TaskState_TASK_STATE_STOPPING:
		return "is being stopped"
	}
	return ""
}

package state

import (
	"google.golang.org/protobuf/proto"

	"orch/engine/api"
)

// changes carries out a batch of the control loop. What refers to a row that
// an operator's command removed meanwhile is passed over: the loop looks
// again and sees it.
func (w *writer) changes(c *api.Changes) error {
	if c == nil {
		return refuse(Invalid, "there are no changes")
	}
	for _, s := range c.PutSlots {
		if s.GetId() != "" && w.Service(s.ServiceId) != nil {
			w.put(slotTable, s)
		}
	}
	for _, r := range c.Rollouts {
		w.advance(r)
	}
	for _, t := range c.Create {
		w.create(t)
	}
	for _, ch := range c.Change {
		w.changeTask(ch)
	}
	for _, s := range c.Services {
		if old := w.Service(s.Id); old != nil {
			svc := proto.CloneOf(old)
			if s.Run != nil {
				svc.Run = s.Run
			}
			w.put(serviceTable, svc)
		}
	}
	for _, id := range c.DeleteTasks {
		if t := w.Task(id); t != nil {
			w.delete(taskTable, t)
		}
	}
	for _, id := range c.DeleteSlots {
		if s := w.Slot(id); s != nil {
			w.delete(slotTable, s)
		}
	}
	for _, id := range c.DeleteServices {
		w.deleteService(id)
	}
	for _, name := range c.DeleteStacks {
		w.deleteStack(name)
	}
	return nil
}

func (w *writer) create(t *api.Task) {
	slot := w.Slot(t.GetSlotId())
	if slot == nil || t.Id != TaskID(slot.Id, slot.Attempts+1) {
		return
	}
	slot = proto.CloneOf(slot)
	slot.Attempts++
	w.put(slotTable, slot)
	t = shallow(t)
	t.CreatedAt = w.now
	w.put(taskTable, t)
}

func (w *writer) changeTask(c *api.TaskChange) {
	old := w.Task(c.GetId())
	if old == nil {
		return
	}
	t := shallow(old)
	if c.NodeId != "" && t.NodeId == "" {
		t.NodeId, t.Wait = c.NodeId, nil
		t.Status = &api.TaskStatus{TaskId: t.Id, State: api.TaskState_TASK_STATE_ASSIGNED, StateSince: w.now}
	}
	if c.Desired > t.Desired {
		t.Desired, t.StopReason, t.StopSince = c.Desired, c.StopReason, w.now
		if t.NodeId == "" { // nothing to stop
			t.Status = &api.TaskStatus{TaskId: t.Id, State: api.TaskState_TASK_STATE_STOPPED, StateSince: w.now, Message: c.StopReason}
		}
	}
	if c.Move != "" {
		t.Move = c.Move
	}
	switch {
	case c.ClearWait:
		t.Wait = nil
	case c.Wait != nil:
		t.Wait = c.Wait
	}
	if c.Lost && !Ended(t.Status.GetState()) {
		was := t.Status
		t.Status = &api.TaskStatus{
			TaskId: t.Id, State: api.TaskState_TASK_STATE_LOST, StateSince: w.now, Message: c.StopReason,
			RuntimeId: was.GetRuntimeId(), Address: was.GetAddress(), StartedAt: was.GetStartedAt(),
		}
	}
	w.put(taskTable, t)
}

// advance ends and begins ops of a rollout, if it still is where the
// proposer saw it.
func (w *writer) advance(a *api.RolloutAdvance) {
	old := w.Rollout(a.GetId())
	if old == nil || old.Outcome != "" || old.Generation != a.Generation || uint64(len(old.Journal)) != a.Seq {
		return
	}
	r := proto.CloneOf(old)
	if a.End != nil && len(r.Journal) > 0 {
		r.Journal[len(r.Journal)-1] = a.End
	}
	if a.Begin != nil {
		r.Journal = append(r.Journal, a.Begin)
	}
	if len(a.FailedTasks) > 0 {
		r.FailedTasks = a.FailedTasks
	}
	if a.Reason != "" {
		r.Reason = a.Reason
	}
	if a.Phase != "" && a.Phase != r.Phase {
		r.Phase = a.Phase
		r.Generation++
	}
	if a.Outcome != "" {
		r.Outcome, r.EndedAt = a.Outcome, w.now
	}
	w.put(rolloutTable, r)
	for _, s := range a.Slots {
		if was := w.Slot(s.GetId()); was != nil {
			s = proto.CloneOf(s)
			s.Attempts = was.Attempts
			w.put(slotTable, s)
		}
	}
	w.settle(r)
}

// settle brings the service in line with what its rollout came to.
func (w *writer) settle(r *api.Rollout) {
	old := w.Service(r.ServiceId)
	if old == nil || old.RolloutId != r.Id {
		return
	}
	svc := proto.CloneOf(old)
	switch {
	case r.Outcome == "succeeded":
		svc.StableSpec, svc.StableVersion, svc.StableRelease = svc.Spec, svc.Version, svc.Release
	case r.Phase == "rollback" && svc.Version == r.ToVersion && svc.StableSpec != nil:
		svc.Spec, svc.Version, svc.Release = svc.StableSpec, svc.StableVersion, svc.StableRelease
	default:
		return
	}
	w.put(serviceTable, svc)
}

func (w *writer) signalRollout(s *api.SignalRollout) error {
	svc := w.Service(s.GetServiceId())
	if svc == nil {
		return refuse(NotFound, "no service %q", s.GetServiceId())
	}
	old := w.Rollout(svc.RolloutId)
	switch {
	case old == nil:
		return refuse(NotFound, "service %q has no rollout", svc.Id)
	case s.Signal == "resume" && halted(old):
		r := proto.CloneOf(old)
		r.Outcome, r.EndedAt = "", nil
		if r.Phase != "rollback" {
			r.Reason = ""
		}
		r.Journal, r.FailedTasks = nil, nil
		r.Generation++
		w.put(rolloutTable, r)
	case s.Signal == "pause" && old.Outcome == "":
		w.endRollout(svc, "paused", "paused by "+s.By)
	case s.Signal == "abort" && (old.Outcome == "" || halted(old)):
		r := proto.CloneOf(old)
		r.Outcome, r.EndedAt, r.Phase, r.Reason = "", nil, "rollback", "aborted by "+s.By
		r.Journal = nil
		r.Generation++
		w.put(rolloutTable, r)
		w.settle(r)
	default:
		return refuse(Invalid, "cannot %s the rollout of %q: it is %s", s.Signal, svc.Id, nonEmpty(old.Outcome, "under way"))
	}
	return nil
}

// halted says that a rollout waits for an operator.
func halted(r *api.Rollout) bool { return r.Outcome == "paused" || r.Outcome == "needs_operator" }

func nonEmpty(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func (w *writer) deleteService(id string) {
	svc := w.Service(id)
	if svc == nil || !svc.Removed || len(w.TasksOf(id)) > 0 {
		return
	}
	for _, s := range w.SlotsOf(id) {
		w.delete(slotTable, s)
	}
	for _, r := range w.RolloutsOf(id) {
		w.delete(rolloutTable, r)
	}
	for _, v := range w.versionsOf(id) {
		w.delete(versionTable, v)
	}
	w.delete(serviceTable, svc)
}

func (w *writer) deleteStack(name string) {
	st := w.Stack(name)
	if st == nil || !st.Removed || len(w.ServicesOf(name)) > 0 {
		return
	}
	for _, r := range w.Releases(name) {
		w.delete(releaseTable, r)
	}
	for _, s := range list[*api.SecretValue](w.View, secretTable, idIndex+"_prefix", SecretID(name, "")) {
		w.delete(secretTable, s)
	}
	w.delete(stackTable, st)
	w.forgetBundles()
}

package state

import (
	"fmt"

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
		w.changeService(s)
	}
	for _, r := range c.Releases {
		w.changeRelease(r)
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

func (w *writer) changeService(c *api.ServiceChange) {
	old := w.Service(c.GetId())
	if old == nil || c.Run == nil {
		return
	}
	svc := shallowService(old)
	svc.Run = c.Run
	w.put(serviceTable, svc)
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
	if full := w.attach(t); full != "" {
		t.Status = &api.TaskStatus{TaskId: t.Id, State: api.TaskState_TASK_STATE_FAILED, StateSince: w.now,
			Message: fmt.Sprintf("network %q has no free address left in %s", full, w.Network(NetworkID(w.Service(t.ServiceId).GetStack(), full)).GetSubnet())}
	}
	w.putTask(nil, t)
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
	if c.ClearHold {
		t.Hold = false
	}
	if c.Drained && t.Desired == api.TaskDesired_TASK_DESIRED_STOP {
		t.Drained, t.Wait = true, nil
	}
	switch {
	case c.ClearWait:
		t.Wait = nil
	case c.Wait != nil:
		t.Wait = c.Wait
	}
	if t.Desired != old.Desired {
		w.drain(t)
	}
	if c.Lost && !Ended(t.Status.GetState()) {
		was := t.Status
		t.Status = &api.TaskStatus{
			TaskId: t.Id, State: api.TaskState_TASK_STATE_LOST, StateSince: w.now, Message: c.StopReason,
			RuntimeId: was.GetRuntimeId(), Address: was.GetAddress(), StartedAt: was.GetStartedAt(),
		}
	}
	w.putTask(old, t)
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
	for _, n := range w.NetworksOf(name) {
		w.delete(networkTable, n)
	}
	w.delete(stackTable, st)
	w.forgetBundles()
}

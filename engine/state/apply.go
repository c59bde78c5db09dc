package state

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"orch/engine/api"
)

// writer is one entry's transaction.
type writer struct {
	View
	now     *timestamppb.Timestamp
	release uint64
}

func (w *writer) put(table string, row any) {
	if err := w.txn.Insert(table, row); err != nil {
		panic(err) // a row without an id: callers check ids first
	}
}

func (w *writer) delete(table string, row any) {
	if err := w.txn.Delete(table, row); err != nil {
		panic(err)
	}
}

func (w *writer) command(c *api.Command) error {
	switch k := c.Kind.(type) {
	case *api.Command_PutCluster:
		return w.putCluster(k.PutCluster)
	case *api.Command_PutNode:
		return w.putNode(k.PutNode)
	case *api.Command_RemoveNode:
		return w.removeNode(k.RemoveNode)
	case *api.Command_SetNode:
		return w.setNode(k.SetNode)
	case *api.Command_PutRelease:
		return w.putRelease(k.PutRelease)
	case *api.Command_SetStack:
		return w.setStack(k.SetStack)
	case *api.Command_Changes:
		return w.changes(k.Changes)
	case *api.Command_Reports:
		for _, r := range k.Reports.GetReports() {
			w.report(r)
		}
		return nil
	case *api.Command_PutSecret:
		return w.putSecret(k.PutSecret)
	case *api.Command_RemoveSecret:
		return w.removeSecret(k.RemoveSecret)
	case *api.Command_SignalRollout:
		return w.signalRollout(k.SignalRollout)
	case *api.Command_SetCluster:
		return w.setCluster(k.SetCluster)
	case *api.Command_PutToken:
		return w.putToken(k.PutToken)
	case *api.Command_RemoveTokens:
		return w.removeTokens(k.RemoveTokens)
	case *api.Command_PutOperator:
		return w.putOperator(k.PutOperator)
	case *api.Command_RemoveOperator:
		return w.removeOperator(k.RemoveOperator)
	}
	return refuse(Invalid, "unknown command %T", c.Kind)
}

func (w *writer) setStack(s *api.SetStack) error {
	old := w.Stack(s.GetName())
	if old == nil {
		return refuse(NotFound, "no stack %q", s.GetName())
	}
	st := proto.CloneOf(old)
	switch s.Action {
	case "stop":
		st.Stopped = true
	case "start":
		if st.Stopped && !st.Removed {
			for _, svc := range w.ServicesOf(st.Name) {
				w.reopen(svc)
			}
		}
		st.Stopped = false
	case "remove":
		st.Removed = true
		for _, svc := range w.ServicesOf(st.Name) {
			w.removeService(svc)
		}
	default:
		return refuse(Invalid, "a stack can be stopped, started or removed, not %q", s.Action)
	}
	w.put(stackTable, st)
	return nil
}

// report takes what an agent says of its own tasks. States only advance.
func (w *writer) report(r *api.ReportStatus) {
	for _, s := range r.GetStatuses() {
		old := w.Task(s.TaskId)
		if old == nil || old.NodeId != r.NodeId || Ended(old.Status.GetState()) || s.State < old.Status.GetState() {
			continue
		}
		t := shallow(old)
		t.Status = s
		if s.State > old.Status.GetState() {
			t.Wait = nil
		}
		w.putTask(old, t)
	}
}

// Ended says whether a task in this state will never run again.
func Ended(s api.TaskState) bool { return s >= api.TaskState_TASK_STATE_COMPLETE }

// shallow copies a task's own fields; what they point to is shared and
// must be replaced, not changed.
func shallow(t *api.Task) *api.Task {
	return &api.Task{
		Id: t.Id, ServiceId: t.ServiceId, SlotId: t.SlotId, Attempt: t.Attempt, Version: t.Version,
		NodeId: t.NodeId, Desired: t.Desired, Wait: t.Wait, Status: t.Status, CreatedAt: t.CreatedAt,
		NotBefore: t.NotBefore, Failures: t.Failures, RolloutId: t.RolloutId, StopReason: t.StopReason,
		Run: t.Run, StopSince: t.StopSince, Move: t.Move, Hold: t.Hold, Epoch: t.Epoch, Drained: t.Drained, Addresses: t.Addresses,
	}
}

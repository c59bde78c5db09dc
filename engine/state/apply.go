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
	}
	return refuse(Invalid, "unknown command %T", c.Kind)
}

func (w *writer) putCluster(c *api.Cluster) error {
	if c.GetId() == "" {
		return refuse(Invalid, "a cluster needs an id")
	}
	if old := w.Cluster(); old != nil && old.Id != c.Id {
		return refuse(Stale, "this is cluster %q already", old.Id)
	}
	w.put(clusterTable, c)
	return nil
}

func (w *writer) putNode(n *api.Node) error {
	if n.GetId() == "" || n.Name == "" {
		return refuse(Invalid, "a node needs an id and a name")
	}
	for _, other := range w.Nodes() {
		if other.Name == n.Name && other.Id != n.Id {
			return refuse(InUse, "node name %q is taken by node %s", n.Name, other.Id)
		}
	}
	w.put(nodeTable, n)
	return nil
}

func (w *writer) removeNode(r *api.RemoveNode) error {
	n := w.Node(r.GetId())
	if n == nil {
		return refuse(NotFound, "no node %q", r.GetId())
	}
	w.delete(nodeTable, n)
	return nil
}

func (w *writer) setNode(s *api.SetNode) error {
	old := w.Node(s.GetId())
	if old == nil {
		return refuse(NotFound, "no node %q", s.GetId())
	}
	n := proto.CloneOf(old)
	if s.Status != "" && s.Status != n.Status {
		n.Status, n.StatusReason, n.StatusSince = s.Status, s.StatusReason, w.now
	}
	if s.Availability != "" {
		n.Availability = s.Availability
	}
	if s.Role != "" {
		n.Role = s.Role
	}
	for k, v := range s.Labels {
		if n.Labels == nil {
			n.Labels = map[string]string{}
		}
		if n.Labels[k] = v; v == "" {
			delete(n.Labels, k)
		}
	}
	if s.Facts != nil {
		n.Facts = s.Facts
	}
	w.put(nodeTable, n)
	return nil
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

// reopen drops the open op of a service's rollout, which is then begun anew:
// its deadline went on while the stack was stopped.
func (w *writer) reopen(svc *api.Service) {
	old := w.Rollout(svc.RolloutId)
	if old == nil || old.Outcome != "" || len(old.Journal) == 0 || old.Journal[len(old.Journal)-1].EndedAt != nil {
		return
	}
	r := proto.CloneOf(old)
	r.Journal = r.Journal[:len(r.Journal)-1]
	r.Generation++
	w.put(rolloutTable, r)
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
		if s.State >= api.TaskState_TASK_STATE_STARTING {
			t.Wait = nil
		}
		w.put(taskTable, t)
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
		Run: t.Run, StopSince: t.StopSince,
	}
}

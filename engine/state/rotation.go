package state

import (
	"math"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"orch/engine/api"
)

// Rotation is a task's part in the endpoint table.
type Rotation int

const (
	Out      Rotation = iota // nothing goes there
	In                       // it takes new connections
	Draining                 // it serves those that it has
)

// Followed is how far the nodes have followed the endpoint table.
type Followed struct {
	Applied  uint64            // every node that is up has applied it up to this epoch
	InFlight map[string]uint32 // of draining tasks: connections and requests, from all nodes
}

// Everywhere is when all is applied at once.
var Everywhere = Followed{Applied: math.MaxUint64}

// RotationOf is the part of a task; nil has none.
func RotationOf(t *api.Task) Rotation {
	switch {
	case Ended(t.GetStatus().GetState()), t.GetStatus().GetReadySince() == nil:
		return Out
	case t.Desired == api.TaskDesired_TASK_DESIRED_STOP && t.Drained:
		return Out
	case t.Desired == api.TaskDesired_TASK_DESIRED_STOP:
		return Draining
	case t.Status.State == api.TaskState_TASK_STATE_RUNNING && t.Status.Ready:
		return In
	}
	return Out
}

// part is what the endpoint table says of a task.
type part struct {
	rotation Rotation
	listed   bool // it is there, since it takes part in traffic or is on networks
}

func partOf(t *api.Task) part {
	r := RotationOf(t)
	return part{r, r != Out || OnNetworks(t)}
}

// OnNetworks says that a task has addresses in networks across hosts and runs,
// or will.
func OnNetworks(t *api.Task) bool {
	return t.GetNodeId() != "" && len(t.GetAddresses()) > 0 && !Ended(t.Status.GetState())
}

// Listed says that the endpoint table has a task.
func Listed(t *api.Task) bool { return t.GetEpoch() > 0 && partOf(t).listed }

// Reached says that others connect to tasks of a service by the endpoint
// table: it has ports or, in that version, networks.
func Reached(v View, service, version string) bool {
	return len(v.Service(service).GetSpec().GetPorts()) > 0 || len(v.Version(service, version).GetTask().GetNetworks()) > 0
}

// DrainEnd is until when at most a task drains that is to stop.
func DrainEnd(v View, t *api.Task) time.Time {
	return t.StopSince.AsTime().Add(v.Version(t.ServiceId, t.Version).GetTask().GetDrain().AsDuration())
}

// putTask writes a task's row. An entry that changes its part in the endpoint
// table is the epoch which every node has to have applied until that counts.
func (w *writer) putTask(old, t *api.Task) {
	was, is := partOf(old), partOf(t)
	if (was != is || is.rotation != Out && old.GetStatus().GetAddress() != t.Status.GetAddress()) && Reached(w.View, t.ServiceId, t.Version) {
		t.Epoch = w.index
	}
	w.put(taskTable, t)
}

// drain says until when a task that is to stop may go on with what it has
// begun; one that nothing can be in flight to is stopped at once.
func (w *writer) drain(t *api.Task) {
	if RotationOf(t) != Draining || !Reached(w.View, t.ServiceId, t.Version) {
		t.Drained = true
		return
	}
	t.Wait = &api.Wait{Reason: "drains: takes nothing new, goes on with what is in flight", Since: w.now, Deadline: timestamppb.New(DrainEnd(w.View, t))}
}

// Traffic is the part that a rollout gives its new version of what comes in,
// in percent; steered is false where it goes by tasks alone.
func Traffic(r *api.Rollout) (percent uint32, steered bool) {
	if r.GetOutcome() != "" && !Halted(r) {
		return 0, false
	}
	for i := len(r.GetJournal()) - 1; i >= 0; i-- {
		if op := r.Journal[i]; op.Kind == "traffic" && op.Ok {
			if r.Phase == "rollback" {
				return 0, true
			}
			return uint32(op.Count), true
		}
	}
	return 0, false
}

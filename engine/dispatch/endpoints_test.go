package dispatch_test

import (
	"math"
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"

	"orch/engine/api"
	"orch/engine/state"
)

// follower is an agent that follows the endpoint table.
func (r *rig) follower(id string) *agent {
	r.Helper()
	return r.greet(&api.Hello{NodeId: id, Name: id, Follows: true})
}

func (a *agent) endpoints() *api.Endpoints {
	a.Helper()
	for {
		if m := a.next().GetEndpoints(); m != nil {
			return m
		}
	}
}

func (a *agent) followed(epoch uint64, inFlight map[string]uint32) {
	a.send(&api.AgentMessage{Kind: &api.AgentMessage_Followed{Followed: &api.Followed{Epoch: epoch, InFlight: inFlight}}})
}

func ready(id, address string) *api.TaskStatus {
	s := running(id)
	s.ReadySince, s.Address = timestamppb.Now(), address
	return s
}

// Agents get the table whole, then what changes of it; the engine knows how
// far all of them have come.
func TestEndpointsAreFollowed(t *testing.T) {
	r := newRig(t)
	r.deploy(2)
	one := r.assign(1, "n1")
	a := r.follower("n1")
	m := a.endpoints()
	if !m.Full || len(m.Endpoints) != 1 || !m.Endpoints[0].Starting || m.Endpoints[0].Addresses["web/net"] == "" || len(m.Networks) != 1 || len(m.Services) != 1 || m.Services[0].Addresses["web/net"] == "" || m.Epoch == 0 {
		t.Fatalf("at first %v", m)
	}
	if f := r.d.Followed(); f.Applied != 0 {
		t.Errorf("before it said anything: %v", f)
	}
	a.followed(m.Epoch, nil)
	a.report(ready(one, "10.0.0.1"))
	m = a.endpoints()
	if m.Full || len(m.Endpoints) != 1 || m.Endpoints[0].TaskId != one || m.Endpoints[0].Address != "10.0.0.1" || m.Endpoints[0].NodeId != "n1" || m.Endpoints[0].Draining || m.Endpoints[0].Starting {
		t.Fatalf("once it is ready: %v", m)
	}
	epoch := r.task(one).Epoch
	if m.Epoch < epoch || epoch == 0 {
		t.Errorf("the message is of epoch %d, the task of %d", m.Epoch, epoch)
	}
	b := r.follower("n2")
	whole := b.endpoints()
	if !whole.Full || len(whole.Endpoints) != 1 {
		t.Errorf("to another node: %v", whole)
	}
	b.followed(whole.Epoch, nil)
	r.eventually("b has followed", func() bool { return r.d.Followed().Applied > 0 })
	if f := r.d.Followed(); f.Applied >= epoch {
		t.Errorf("a hasn't followed: %v", f)
	}
	a.followed(m.Epoch, nil)
	r.eventually("both have followed", func() bool { return r.d.Followed().Applied >= epoch })

	r.do(&api.Command{Kind: &api.Command_Changes{Changes: &api.Changes{Change: []*api.TaskChange{{Id: one, Desired: api.TaskDesired_TASK_DESIRED_STOP}}}}})
	for _, x := range []*agent{a, b} {
		if m = x.endpoints(); len(m.Endpoints) != 1 || !m.Endpoints[0].Draining {
			t.Errorf("draining: %v", m)
		}
		x.followed(m.Epoch, map[string]uint32{one: 2})
	}
	r.eventually("what is in flight is summed up", func() bool { return r.d.Followed().InFlight[one] == 4 })
	select {
	case <-r.d.News():
	default:
		t.Error("nobody was told")
	}
	r.do(&api.Command{Kind: &api.Command_Changes{Changes: &api.Changes{Change: []*api.TaskChange{{Id: one, Drained: true}}}}})
	if m = a.endpoints(); len(m.Endpoints) != 1 || !m.Endpoints[0].Starting || m.Endpoints[0].Draining {
		t.Errorf("drained: %v", m)
	}
	ended := running(one)
	ended.State = api.TaskState_TASK_STATE_STOPPED
	a.report(ended)
	if m = a.endpoints(); len(m.Endpoints) != 0 || len(m.RemovedEndpoints) != 1 || m.RemovedEndpoints[0] != one {
		t.Errorf("ended: %v", m)
	}
	// Who is away holds things up until it is down.
	b.leave()
	r.eventually("b is missed", func() bool { return r.d.Followed().Applied == 0 })
	r.do(&api.Command{Kind: &api.Command_SetNode{SetNode: &api.SetNode{Id: "n2", Status: "down"}}})
	if f := r.d.Followed(); f.Applied == 0 || f.Applied == math.MaxUint64 {
		t.Errorf("without b: %v", f)
	}
}

// An agent of before, which doesn't know of the table, isn't waited for.
func TestWhoDoesNotFollowIsNotWaitedFor(t *testing.T) {
	r := newRig(t)
	r.hello("n1")
	if f := r.d.Followed(); f.Applied != state.Everywhere.Applied {
		t.Errorf("got %v", f)
	}
}

package dispatch

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"orch/engine/api"
	"orch/engine/simulate"
	"orch/engine/state"
)

// mirror is a dumb agent: it keeps what it is sent.
type mirror struct {
	sent      uint64
	endpoints map[string]*api.Endpoint
}

func (m *mirror) take(e *api.Endpoints) {
	if e.Full {
		m.endpoints = map[string]*api.Endpoint{}
	}
	for _, x := range e.Endpoints {
		m.endpoints[x.TaskId] = x
	}
	for _, id := range e.RemovedEndpoints {
		delete(m.endpoints, id)
	}
	m.sent = e.Epoch
}

// Whoever takes the changes, at whatever times, and however few are
// remembered, has what one has who is sent all.
func TestChangesComeToTheWholeTable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := simulate.New()
		var r ring
		r.reset(w.State.View().Index())
		w.Committed = func(v state.View, deltas []state.Delta) error {
			r.note(state.Change{Index: v.Index(), Deltas: deltas})
			return nil
		}
		if err := w.NodeUp(&api.Node{Id: "a"}); err != nil {
			t.Fatal(err)
		}
		put := func(image string, n int) {
			svc := &api.ServiceSpec{Name: "web", Mode: "replicated", Replicas: int32(n), Task: &api.TaskSpec{Image: image, Runtime: "docker"}, Ports: []*api.PortSpec{{Target: 80, Publish: 8080}}}
			_, err := w.Propose(&api.Command{Kind: &api.Command_PutRelease{PutRelease: &api.PutRelease{
				Release: &api.Release{Stack: "s", BundleHash: "b", Spec: &api.StackSpec{Name: "s", Services: []*api.ServiceSpec{svc}}},
				Bundle:  &api.Bundle{Hash: "b"}, Versions: map[string]string{"web": image}, BaseRelease: w.State.View().Stack("s").GetRelease()}}})
			if err != nil {
				t.Fatal(err)
			}
		}
		agents := []*mirror{{}, {}, {}}
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0:
				put("v1", rapid.IntRange(0, 5).Draw(t, "n"))
			case 1:
				w.SetReady(fmt.Sprintf("s/web.%d#1", rapid.IntRange(1, 5).Draw(t, "task")), rapid.Bool().Draw(t, "ready"))
			case 2:
				w.End(fmt.Sprintf("s/web.%d#1", rapid.IntRange(1, 5).Draw(t, "task")), "it broke")
			case 3:
				if n := len(r.changes); n > 1 { // as if there had been more than are kept
					r.from, r.changes = r.changes[n/2].epoch, r.changes[n/2+1:]
				}
			}
			if err := w.Settle(); err != nil {
				t.Fatal(err)
			}
			m := agents[rapid.IntRange(0, 2).Draw(t, "who")]
			changes, whole := r.since(m.sent)
			m.take(table(w.State.View(), r.until, changes, whole))
			var want mirror
			want.take(table(w.State.View(), r.until, nil, true))
			if len(m.endpoints) != len(want.endpoints) {
				t.Fatalf("got %v, want %v", m.endpoints, want.endpoints)
			}
			for id, e := range want.endpoints {
				if !proto.Equal(e, m.endpoints[id]) {
					t.Fatalf("%s: got %v, want %v", id, m.endpoints[id], e)
				}
			}
		}
	})
}

func TestTheRingForgetsTheOldest(t *testing.T) {
	var r ring
	r.reset(10)
	for i := range uint64(3 * mostChanges) {
		r.note(state.Change{Index: 11 + i/2, Deltas: []state.Delta{{After: &api.Task{Id: fmt.Sprint(i), Epoch: 11 + i/2, CreatedAt: timestamppb.Now()}}}})
	}
	if len(r.changes) > mostChanges {
		t.Errorf("%d are kept", len(r.changes))
	}
	if _, whole := r.since(r.from - 1); !whole {
		t.Error("what was forgotten is missing")
	}
	changes, whole := r.since(r.from)
	if whole || len(changes) != int(2*(r.until-r.from)) {
		t.Errorf("since %d until %d: %d changes, whole %v", r.from, r.until, len(changes), whole)
	}
}

package store

import (
	"fmt"
	"io"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"orch/engine/api"
	"orch/engine/state"
)

// fsm lets raft drive the state.
type fsm struct{ s *Store }

func (f *fsm) Apply(l *raft.Log) any {
	c := &api.Command{}
	if err := proto.Unmarshal(l.Data, c); err != nil {
		return state.Result{Err: fmt.Errorf("entry %d can't be read: %w", l.Index, err)}
	}
	r := f.s.state.Apply(l.Index, c)
	if len(r.Deltas) > 0 {
		f.s.tell(state.Change{Index: l.Index, Time: c.Time.AsTime(), Deltas: r.Deltas})
	}
	return r
}

func (f *fsm) Snapshot() (raft.FSMSnapshot, error) { return snapshot{f.s.View()}, nil }

func (f *fsm) Restore(r io.ReadCloser) error {
	defer r.Close()
	if err := f.s.state.Restore(r); err != nil {
		return err
	}
	f.s.tellAll()
	return nil
}

type snapshot struct{ view state.View }

func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if err := s.view.WriteSnapshot(sink); err != nil {
		sink.Cancel()
		return err
	}
	return sink.Close()
}

func (snapshot) Release() {}

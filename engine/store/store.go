package store

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"orch/engine/state"
)

// Config says where a store lives and how it reaches the others.
type Config struct {
	Dir     string // raft.db and snapshots/; "": in memory only
	NodeID  string // raft's server id
	Address string // where others reach this engine, host:port; "": the layer's
	Layer   raft.StreamLayer
	Timing  Timing // zero: 500, 500 and 250 ms
	Key     []byte // 32 bytes: encrypts the log and snapshots on the disk; nil: they stand as they are
	Logger  *slog.Logger
	// TrailingLogs kept after a snapshot; 0: 10240.
	TrailingLogs uint64
	// SnapshotThreshold entries between snapshots; 0: 8192.
	SnapshotThreshold uint64

	// disk, if set, stands between raft and its log: tests let it fail.
	disk func(raft.LogStore, raft.StableStore) (raft.LogStore, raft.StableStore)
}

// Timing of elections. A leader that can't reach a quorum for Lease steps
// down; a follower that hears nothing for Heartbeat stands for election, and
// again after Election; both for up to twice as long, at random.
type Timing struct{ Heartbeat, Election, Lease time.Duration }

var defaultTiming = Timing{500 * time.Millisecond, 500 * time.Millisecond, 250 * time.Millisecond}

// Store is one engine's copy.
type Store struct {
	raft     *raft.Raft
	state    *state.State
	log      *slog.Logger
	id       raft.ServerID
	timing   Timing
	leading  chan bool
	trans    *transport
	files    files
	disk     *patient
	caughtUp atomic.Uint64 // term in which all of those before is applied here

	mu      sync.Mutex
	closing bool           // nothing may be asked any more
	asked   sync.WaitGroup // what raft hasn't answered yet
	watchers
}

// Open opens or makes the store in c.Dir. A store that was never part of a
// cluster waits until Bootstrap, or until a leader adds it; a lone voter leads
// at once.
func Open(c Config) (*Store, error) {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Timing == (Timing{}) {
		c.Timing = defaultTiming
	}
	f, err := openFiles(c)
	if err != nil {
		return nil, err
	}
	if c.disk != nil {
		f.logs, f.stable = c.disk(f.logs, f.stable)
	}
	// Later a disk that takes no writes is waited for; who opens is told.
	if err := f.stable.SetUint64([]byte("orch-opened"), 1); err != nil {
		f.close()
		return nil, fmt.Errorf("cannot write the raft log in %s: %w", c.Dir, err)
	}
	s := &Store{
		state: state.New(), log: c.Logger, id: raft.ServerID(c.NodeID), timing: c.Timing, leading: make(chan bool, 16),
		files: f, disk: newPatient(f.logs, f.stable, c.Logger),
	}
	// One request at a time: in raft 1.7 a pipeline whose follower answers no
	// can wait for itself for ever, and it brings nothing that can be measured.
	s.trans = newTransport(raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: c.Layer, MaxPool: maxPool, MaxRPCsInFlight: 1, Timeout: answerWithin, Logger: raftLogger(c.Logger),
	}), c.Address)
	if err := s.start(c); err != nil {
		s.trans.Close()
		f.close()
		return nil, fmt.Errorf("cannot start raft: %w", err)
	}
	s.stand()
	return s, nil
}

// start panics no more than raft.NewRaft returns errors: it does the former
// where it can't read an entry of the log, before it has begun anything.
func (s *Store) start(c Config) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	rc := raft.DefaultConfig()
	rc.LocalID = s.id
	rc.HeartbeatTimeout, rc.ElectionTimeout, rc.LeaderLeaseTimeout = c.Timing.Heartbeat, c.Timing.Election, c.Timing.Lease
	rc.CommitTimeout = min(rc.CommitTimeout, c.Timing.Heartbeat/2)
	rc.Logger = raftLogger(c.Logger)
	rc.NotifyCh = s.leading
	rc.SnapshotThreshold = or(c.SnapshotThreshold, 8192)
	rc.TrailingLogs = or(c.TrailingLogs, 10240)
	rc.ShutdownOnRemove = false
	rc.MaxAppendEntries = 256
	if s.raft, err = raft.NewRaft(rc, &fsm{s}, s.disk, s.disk, s.files.snaps, s.trans); err != nil {
		return errors.Join(err, s.files.why())
	}
	s.trans.raft.Store(s.raft)
	return nil
}

// stand lets this store lead at once, if it is the only voter.
func (s *Store) stand() {
	alone := false
	for _, m := range s.Members() {
		if m.Voter && m.ID != string(s.id) {
			return
		}
		alone = alone || m.Voter
	}
	if alone && s.raft.State() == raft.Follower {
		s.trans.stand(s.id)
	}
}

func or(v, otherwise uint64) uint64 {
	if v == 0 {
		return otherwise
	}
	return v
}

// Bootstrap makes this engine the only voter of a new cluster. It is no
// error if the store is part of a cluster already.
func (s *Store) Bootstrap() error {
	err := s.raft.BootstrapCluster(raft.Configuration{Servers: []raft.Server{{ID: s.id, Address: s.trans.LocalAddr()}}}).Error()
	switch {
	case errors.Is(err, raft.ErrCantBootstrap):
		return nil
	case err != nil:
		return explain("cannot make a cluster", err)
	}
	s.stand()
	return nil
}

// View is the state that this engine has applied.
func (s *Store) View() state.View { return s.state.View() }

// Leading receives true when this engine begins to lead and false when it
// ceases to. There is one receiver, and it must keep up.
func (s *Store) Leading() <-chan bool { return s.leading }

// Leader is the leader's node id and address; empty if none is known.
func (s *Store) Leader() (id, address string) {
	a, n := s.raft.LeaderWithID()
	return string(n), string(a)
}

// Snapshot writes a snapshot now and lets the log be cut. It waits until the
// disk takes writes.
func (s *Store) Snapshot() error {
	err := s.raft.Snapshot().Error()
	if errors.Is(err, raft.ErrNothingNewToSnapshot) {
		return nil
	}
	return err
}

// Backup writes the state to w in the snapshot's format.
func (s *Store) Backup(w io.Writer) error { return s.View().WriteSnapshot(w) }

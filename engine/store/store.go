package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"

	"orch/engine/api"
	"orch/engine/state"
)

// Config says where a store lives and how it reaches the others.
type Config struct {
	Dir     string // raft.db and snapshots/; "": in memory only
	NodeID  string // raft's server id
	Address string // where others reach this engine
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
// down; a follower that hears nothing for Heartbeat stands for election.
type Timing struct{ Heartbeat, Election, Lease time.Duration }

var defaultTiming = Timing{500 * time.Millisecond, 500 * time.Millisecond, 250 * time.Millisecond}

// Store is one engine's copy.
type Store struct {
	raft    *raft.Raft
	state   *state.State
	log     *slog.Logger
	id      raft.ServerID
	leading chan bool
	trans   *standing
	bolt    io.Closer
	disk    *patient
	watchers
}

// Open opens or makes the store in c.Dir. A store that was never part of a
// cluster waits until Bootstrap, or until a leader adds it.
func Open(c Config) (*Store, error) {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Store{state: state.New(), log: c.Logger, id: raft.ServerID(c.NodeID), leading: make(chan bool, 16)}
	logs, stable, snaps, err := s.open(c)
	if err != nil {
		return nil, err
	}
	if c.Timing == (Timing{}) {
		c.Timing = defaultTiming
	}
	known, err := voters(logs, stable, snaps)
	if err != nil {
		s.closeBolt()
		return nil, fmt.Errorf("cannot use the raft log in %s: %w; nothing was changed", c.Dir, err)
	}
	if c.disk != nil {
		logs, stable = c.disk(logs, stable)
	}
	// Later a disk that takes no writes is waited for; who opens is told.
	if err := stable.SetUint64([]byte("orch-opened"), 1); err != nil {
		s.closeBolt()
		return nil, fmt.Errorf("cannot write the raft log in %s: %w", c.Dir, err)
	}
	s.disk = newPatient(logs, stable, c.Logger)
	logger := raftLogger(c.Logger)
	rc := raft.DefaultConfig()
	rc.LocalID = s.id
	rc.HeartbeatTimeout, rc.ElectionTimeout, rc.LeaderLeaseTimeout = c.Timing.Heartbeat, c.Timing.Election, c.Timing.Lease
	rc.CommitTimeout = min(rc.CommitTimeout, c.Timing.Heartbeat/2)
	rc.Logger = logger
	rc.NotifyCh = s.leading
	rc.SnapshotThreshold = or(c.SnapshotThreshold, 8192)
	rc.TrailingLogs = or(c.TrailingLogs, 10240)
	rc.ShutdownOnRemove = false
	rc.MaxAppendEntries = 256
	s.trans = newStanding(raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: c.Layer, MaxPool: 3, Timeout: 10 * time.Second, Logger: logger,
	}))
	if s.raft, err = raft.NewRaft(rc, &fsm{s}, s.disk, s.disk, snaps, s.trans); err != nil {
		s.trans.Close()
		s.closeBolt()
		return nil, fmt.Errorf("cannot start raft: %w", err)
	}
	if known == 1 {
		s.stand()
	}
	return s, nil
}

// stand lets this store lead at once, if it is the only voter.
func (s *Store) stand() {
	if all := s.Members(); len(all) == 1 && all[0].Voter && all[0].ID == string(s.id) {
		s.trans.stand(s.id, raft.ProtocolVersionMax)
	}
}

func or(v, otherwise uint64) uint64 {
	if v == 0 {
		return otherwise
	}
	return v
}

func (s *Store) open(c Config) (raft.LogStore, raft.StableStore, raft.SnapshotStore, error) {
	if c.Dir == "" {
		m := raft.NewInmemStore()
		return m, m, raft.NewInmemSnapshotStore(), nil
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, nil, nil, fmt.Errorf("cannot make the data folder: %w", err)
	}
	path := filepath.Join(c.Dir, "raft.db")
	if err := checkLog(path); err != nil {
		return nil, nil, nil, err
	}
	bolt, err := raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: &bbolt.Options{Timeout: time.Second}})
	if err != nil {
		return nil, nil, nil, fmt.Errorf("cannot open the raft log %s: %w", path, err)
	}
	s.bolt = bolt
	snaps, err := raft.NewFileSnapshotStoreWithLogger(c.Dir, 2, raftLogger(c.Logger))
	if err != nil {
		s.closeBolt()
		return nil, nil, nil, fmt.Errorf("cannot open the snapshots in %s: %w", c.Dir, err)
	}
	if c.Key == nil {
		return bolt, bolt, snaps, nil
	}
	sealed, err := newSealedLog(bolt, c.Key)
	if err != nil {
		s.closeBolt()
		return nil, nil, nil, err
	}
	// What was just written is read soon, by the followers' replication.
	logs, err := raft.NewLogCache(cachedLogs, sealed)
	if err != nil {
		s.closeBolt()
		return nil, nil, nil, err
	}
	safe, err := newSealedSnapshots(snaps, c.Key)
	if err != nil {
		s.closeBolt()
		return nil, nil, nil, err
	}
	return logs, bolt, safe, nil
}

// cachedLogs entries needn't be decrypted again.
const cachedLogs = 512

func (s *Store) closeBolt() {
	if s.bolt != nil {
		s.bolt.Close()
	}
}

// voters counts those of the newest configuration on disk; 0 if there is
// none. It reads all of the log: raft would panic on an entry that it can't
// read later.
func voters(logs raft.LogStore, stable raft.StableStore, snaps raft.SnapshotStore) (int, error) {
	known, err := raft.HasExistingState(logs, stable, snaps)
	if err != nil || !known {
		return 0, err
	}
	n := 0
	if list, err := snaps.List(); err == nil && len(list) > 0 {
		n = len(list[0].Configuration.Servers)
	}
	first, _ := logs.FirstIndex()
	last, _ := logs.LastIndex()
	for i := max(first, 1); i <= last; i++ {
		var l raft.Log
		if err := logs.GetLog(i, &l); err != nil {
			return 0, fmt.Errorf("entry %d of %d: %w", i, last, err)
		}
		if l.Type == raft.LogConfiguration {
			n = len(raft.DecodeConfiguration(l.Data).Servers)
		}
	}
	return n, nil
}

// Bootstrap makes this engine the only voter of a new cluster. It is no
// error if the store is part of a cluster already.
func (s *Store) Bootstrap() error {
	err := s.raft.BootstrapCluster(raft.Configuration{Servers: []raft.Server{{ID: s.id, Address: s.trans.LocalAddr()}}}).Error()
	if errors.Is(err, raft.ErrCantBootstrap) {
		return nil
	}
	if err == nil {
		s.stand()
	}
	return err
}

// ErrNotLeader says that another engine must be asked; Leader names it.
var ErrNotLeader = errors.New("this engine does not lead the cluster")

// Propose commits c and returns what applying it came to on this engine. An
// error means that the log didn't take it: nothing of it will happen, except
// after a context's end or ErrLost, when it may.
func (s *Store) Propose(ctx context.Context, c *api.Command) (state.Result, error) {
	data, err := proto.Marshal(c)
	if err != nil {
		return state.Result{}, fmt.Errorf("cannot encode the command: %w", err)
	}
	trouble, err := s.disk.state()
	if err != nil {
		return state.Result{}, err
	}
	timeout := 10 * time.Second
	if d, ok := ctx.Deadline(); ok {
		timeout = min(timeout, time.Until(d))
	}
	if err := ctx.Err(); err != nil {
		return state.Result{}, err
	}
	done := make(chan outcome, 1)
	// It ends when raft answers, at its shutdown at the latest. Even to hand
	// the command over can take long: raft's loop waits for the disk.
	go func() { done <- s.await(s.raft.Apply(data, timeout)) }()
	for {
		select {
		case o := <-done:
			return o.result, o.err
		case <-ctx.Done():
			return state.Result{}, fmt.Errorf("%w: %w", ErrLost, ctx.Err())
		case <-trouble:
			again, err := s.disk.state()
			if err != nil {
				return state.Result{}, fmt.Errorf("%w: %w", ErrLost, err)
			}
			trouble = again // it was over at once
		}
	}
}

type outcome struct {
	result state.Result
	err    error
}

func (s *Store) await(f raft.ApplyFuture) outcome {
	if err := f.Error(); err != nil {
		return outcome{err: s.explain(err)}
	}
	r := f.Response().(state.Result)
	return outcome{r, r.Err}
}

// ErrLost says that a command's outcome is not known: it may or may not be
// committed.
var ErrLost = errors.New("the change was under way and may still happen")

func (s *Store) explain(err error) error {
	switch {
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return ErrNotLeader
	case errors.Is(err, raft.ErrLeadershipLost):
		return ErrLost
	case errors.Is(err, raft.ErrRaftShutdown):
		return errors.New("the engine is shutting down")
	}
	return fmt.Errorf("cannot write the raft log: %w", err)
}

// View is the state that this engine has applied.
func (s *Store) View() state.View { return s.state.View() }

// Leading receives true when this engine begins to lead and false when it
// ceases to. There is one receiver.
func (s *Store) Leading() <-chan bool { return s.leading }

// Leader is the leader's node id and address; empty if none is known.
func (s *Store) Leader() (id, address string) {
	a, n := s.raft.LeaderWithID()
	return string(n), string(a)
}

// Barrier returns once all that was committed before is applied here.
func (s *Store) Barrier(ctx context.Context) error {
	timeout := 30 * time.Second
	if d, ok := ctx.Deadline(); ok {
		timeout = time.Until(d)
	}
	done := make(chan error, 1)
	go func() { done <- s.raft.Barrier(timeout).Error() }() // ends as in Propose
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-done:
		if err != nil {
			return s.explain(err)
		}
		return nil
	}
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

// Close hands leadership over where there is somebody to take it, and ends.
func (s *Store) Close() error {
	if s.raft.State() == raft.Leader {
		if f := s.raft.GetConfiguration(); f.Error() == nil && len(f.Configuration().Servers) > 1 {
			if err := s.raft.LeadershipTransfer().Error(); err != nil {
				s.log.Warn("cannot hand leadership over", "error", err)
			}
		}
	}
	close(s.disk.closing)
	err := s.raft.Shutdown().Error()
	s.trans.Close()
	s.closeBolt()
	return err
}

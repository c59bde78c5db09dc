package store

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/hashicorp/raft"

	"orch/engine/state"
)

// Recover makes the store in c.Dir the only voter of its cluster, with all
// that it has in its log, also what a majority may never have agreed to. For
// when the others are lost for good: those that come back must join anew.
func Recover(c Config) error {
	return offline(c, func(rc *raft.Config, s *Store, f files, to raft.Configuration) error {
		last, err := f.logs.LastIndex()
		if err != nil {
			return fmt.Errorf("cannot read the raft log in %s: %w", c.Dir, err)
		}
		if all, err := f.snaps.List(); err != nil || last == 0 && len(all) == 0 {
			return errors.Join(fmt.Errorf("there is nothing in %s to recover", c.Dir), err)
		}
		if err := raft.RecoverCluster(rc, &fsm{s}, f.logs, f.stable, f.snaps, nowhere(), to); err != nil {
			return fmt.Errorf("cannot recover: %w", err)
		}
		return nil
	})
}

// Seed makes c.Dir, which holds no log, that of the only voter of a cluster
// whose state is v.
func Seed(c Config, v state.View) error {
	return offline(c, func(_ *raft.Config, _ *Store, f files, to raft.Configuration) error {
		if known, err := raft.HasExistingState(f.logs, f.stable, f.snaps); err != nil || known {
			return errors.Join(fmt.Errorf("there is a log in %s already", c.Dir), err)
		}
		sink, err := f.snaps.Create(raft.SnapshotVersionMax, max(v.Index(), 1), 1, to, 1, nowhere())
		if err != nil {
			return fmt.Errorf("cannot write the snapshot: %w", err)
		}
		if err := (snapshot{v}).Persist(sink); err != nil {
			return fmt.Errorf("cannot write the snapshot: %w", err)
		}
		return f.stable.SetUint64([]byte("CurrentTerm"), 1)
	})
}

// offline opens the files of a store that doesn't run.
func offline(c Config, do func(*raft.Config, *Store, files, raft.Configuration) error) error {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	f, err := openFiles(c)
	if err != nil {
		return err
	}
	rc := raft.DefaultConfig()
	rc.LocalID, rc.Logger = raft.ServerID(c.NodeID), raftLogger(c.Logger)
	err = do(rc, &Store{state: state.New(), log: c.Logger}, f, raft.Configuration{Servers: []raft.Server{{ID: rc.LocalID, Address: raft.ServerAddress(c.Address)}}})
	return errors.Join(err, f.close())
}

// nowhere is a transport that is only asked how it encodes addresses.
func nowhere() raft.Transport {
	_, t := raft.NewInmemTransport("")
	return t
}

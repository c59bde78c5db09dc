package store

import (
	"github.com/hashicorp/raft"
)

// What only tests need: to make a cluster of several, and to break one.

// MaxPending is how many deltas a watcher keeps.
const MaxPending = maxPending

// Kill ends s as a crash would: it hands nothing over, and says nothing more.
func (s *Store) Kill() error {
	s.trans.Close()
	return s.end()
}

// LogRange is the first and the last entry that the log keeps.
func (s *Store) LogRange() (first, last uint64) {
	first, _ = s.disk.FirstIndex()
	last, _ = s.disk.LastIndex()
	return first, last
}

// Tell and TellAll are what raft's goroutine does.
var (
	Tell    = (*watchers).tell
	TellAll = (*watchers).tellAll
)

// Watchers is the set of them.
type Watchers = watchers

// FailWrites lets writes of the log fail with what fail returns, if anything.
func FailWrites(c Config, fail func() error) Config {
	c.disk = func(l raft.LogStore, s raft.StableStore) (raft.LogStore, raft.StableStore) {
		return failing{l, fail}, failingStable{s, fail}
	}
	return c
}

type failing struct {
	raft.LogStore
	fail func() error
}

func (f failing) StoreLogs(l []*raft.Log) error {
	if err := f.fail(); err != nil {
		return err
	}
	return f.LogStore.StoreLogs(l)
}

type failingStable struct {
	raft.StableStore
	fail func() error
}

func (f failingStable) SetUint64(k []byte, v uint64) error {
	if err := f.fail(); err != nil {
		return err
	}
	return f.StableStore.SetUint64(k, v)
}

// Term is the election term that s knows.
func (s *Store) Term() uint64 { return s.raft.CurrentTerm() }

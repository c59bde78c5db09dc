package state

import (
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/go-memdb"

	"orch/engine/api"
)

// State holds the rows.
type State struct {
	mu    sync.RWMutex
	db    *memdb.MemDB // replaced by Restore
	index uint64
}

// New makes an empty state.
func New() *State { return &State{db: empty()} }

func empty() *memdb.MemDB {
	db, err := memdb.NewMemDB(schema())
	if err != nil {
		panic(err)
	}
	return db
}

// View is the state now.
func (s *State) View() View {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return View{s.db.Txn(false), s.index}
}

// Delta is one row that an entry changed: Before is nil for a new row, After
// for one that went. Both are messages of engine/api of the same type.
type Delta struct{ Before, After any }

// Change is what one log entry changed.
type Change struct {
	Index  uint64
	Time   time.Time // the entry's
	Deltas []Delta
}

// Result is what came of a log entry. Err is part of the replicated outcome.
type Result struct {
	Err     error
	Release uint64 // PutRelease: the number given
	Deltas  []Delta
}

// Apply carries out the log entry at index. It never panics on what a
// command holds: one that can't be done leaves the state as it was.
func (s *State) Apply(index uint64, c *api.Command) Result {
	if c == nil || c.Version > CommandSet {
		return s.refuse(index, fmt.Errorf("entry %d is of command set %d; this engine knows %d: upgrade it", index, c.GetVersion(), CommandSet))
	}
	txn := s.db.Txn(true)
	txn.TrackChanges()
	w := &writer{View: View{txn, index}, now: c.Time}
	if err := w.command(c); err != nil {
		txn.Abort()
		return s.refuse(index, err)
	}
	changes := txn.Changes()
	s.mu.Lock()
	txn.Commit()
	s.index = index
	s.mu.Unlock()
	result := Result{Release: w.release, Deltas: make([]Delta, len(changes))}
	for i, c := range changes {
		result.Deltas[i] = Delta{c.Before, c.After}
	}
	return result
}

func (s *State) refuse(index uint64, err error) Result {
	s.mu.Lock()
	s.index = index
	s.mu.Unlock()
	return Result{Err: err}
}

// Refusal is an error that an entry came to; every engine gives the same.
type Refusal struct {
	Kind RefusalKind
	Text string
}

func (r *Refusal) Error() string { return r.Text }

// RefusalKind tells callers what to do about a refusal.
type RefusalKind int

const (
	Invalid  RefusalKind = iota // the command makes no sense
	Stale                       // what it was based on has changed: look again
	NotFound                    // it names something that isn't there
	InUse                       // something still needs what it would take away
)

func refuse(kind RefusalKind, format string, args ...any) error {
	return &Refusal{kind, fmt.Sprintf(format, args...)}
}

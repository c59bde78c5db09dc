package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

// Member is one server of raft's configuration.
type Member struct {
	ID, Address string
	Voter       bool
}

// Members are those of the newest configuration that this engine knows, by
// id. It may not be committed yet.
func (s *Store) Members() []Member {
	f := s.raft.GetConfiguration()
	if f.Error() != nil {
		return nil
	}
	var all []Member
	for _, server := range f.Configuration().Servers {
		all = append(all, Member{string(server.ID), string(server.Address), server.Suffrage == raft.Voter})
	}
	slices.SortFunc(all, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// AddNonvoter lets a server take over the log without a vote. One that is
// there keeps its vote if it has one; its address changes. Like all below it
// must be asked of the leader, ErrNotLeader otherwise; after ErrLost it may
// still happen. Done means committed.
func (s *Store) AddNonvoter(ctx context.Context, id, address string) error {
	return s.change(ctx, func(within time.Duration) raft.Future {
		return s.raft.AddNonvoter(raft.ServerID(id), raft.ServerAddress(address), 0, within)
	})
}

// AddVoter gives a server a vote, or changes its address. It counts for the
// majority at once: let it catch up without a vote first.
func (s *Store) AddVoter(ctx context.Context, id, address string) error {
	return s.change(ctx, func(within time.Duration) raft.Future {
		return s.raft.AddVoter(raft.ServerID(id), raft.ServerAddress(address), 0, within)
	})
}

// Remove takes a server out; it is no error if it isn't in. A leader that
// removes itself steps down.
func (s *Store) Remove(ctx context.Context, id string) error {
	return s.change(ctx, func(within time.Duration) raft.Future { return s.raft.RemoveServer(raft.ServerID(id), 0, within) })
}

// ErrNobody says that no other engine could take the leadership over.
var ErrNobody = errors.New("no other engine that has a vote answers")

// Transfer hands leadership to the voter that has most of the log, among
// those that answer, and returns once this engine leads no more.
func (s *Store) Transfer(ctx context.Context) error {
	if !s.Leads() {
		return ErrNotLeader
	}
	var there []Member
	absent := false
	for _, m := range s.Members() {
		switch {
		case !m.Voter || m.ID == string(s.id):
		case s.trans.hears(raft.ServerID(m.ID), s.timing.Heartbeat):
			there = append(there, m)
		default:
			absent = true
		}
	}
	if len(there) == 0 {
		return ErrNobody
	}
	return s.change(ctx, func(time.Duration) raft.Future {
		if absent { // raft might choose it, and take no entries until it gives up
			return s.raft.LeadershipTransferToServer(raft.ServerID(there[0].ID), raft.ServerAddress(there[0].Address))
		}
		return s.raft.LeadershipTransfer()
	})
}

// Leads says that this engine leads, as far as it knows.
func (s *Store) Leads() bool { return s.raft.State() == raft.Leader }

// LeaderContact is when this engine last heard from a leader; now if it
// leads, zero if it never did.
func (s *Store) LeaderContact() time.Time {
	if s.Leads() {
		return time.Now()
	}
	return s.raft.LastContact()
}

// Applied is the index of the newest entry that this engine applies.
func (s *Store) Applied() uint64 { return s.raft.AppliedIndex() }

func (s *Store) change(ctx context.Context, begin func(within time.Duration) raft.Future) error {
	_, err := s.ask(ctx, func(within time.Duration) outcome {
		if err := begin(within).Error(); err != nil {
			return outcome{err: explain("cannot change the engines", err)}
		}
		return outcome{}
	})
	if err != nil && ctx.Err() != nil && !errors.Is(err, ErrLost) {
		return fmt.Errorf("cannot change the engines: %w", err)
	}
	return err
}

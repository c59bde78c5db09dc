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

// Members are those of the newest configuration that this engine knows, by id.
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

// AddNonvoter lets a server take over the log without a vote, or changes its
// address. Like all below it must be asked of the leader; ErrNotLeader
// otherwise.
func (s *Store) AddNonvoter(ctx context.Context, id, address string) error {
	return s.change(ctx, func(d time.Duration) raft.Future {
		return s.raft.AddNonvoter(raft.ServerID(id), raft.ServerAddress(address), 0, d)
	})
}

// AddVoter gives a server a vote, or changes its address.
func (s *Store) AddVoter(ctx context.Context, id, address string) error {
	return s.change(ctx, func(d time.Duration) raft.Future {
		return s.raft.AddVoter(raft.ServerID(id), raft.ServerAddress(address), 0, d)
	})
}

// Remove takes a server out.
func (s *Store) Remove(ctx context.Context, id string) error {
	return s.change(ctx, func(d time.Duration) raft.Future { return s.raft.RemoveServer(raft.ServerID(id), 0, d) })
}

// Transfer hands leadership to the voter that has most of the log.
func (s *Store) Transfer(ctx context.Context) error {
	return s.change(ctx, func(time.Duration) raft.Future { return s.raft.LeadershipTransfer() })
}

// Verify returns once a majority agrees that this engine still leads.
func (s *Store) Verify(ctx context.Context) error {
	return s.change(ctx, func(time.Duration) raft.Future { return s.raft.VerifyLeader() })
}

// Leads says that this engine leads, as far as it knows.
func (s *Store) Leads() bool { return s.raft.State() == raft.Leader }

// Applied is the index of the newest entry that this engine has applied.
func (s *Store) Applied() uint64 { return s.raft.AppliedIndex() }

func (s *Store) change(ctx context.Context, begin func(time.Duration) raft.Future) error {
	timeout := 10 * time.Second
	if d, ok := ctx.Deadline(); ok {
		timeout = time.Until(d)
	}
	done := make(chan error, 1)
	go func() { done <- begin(timeout).Error() }() // ends when raft answers, at its shutdown at the latest
	select {
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrLost, ctx.Err())
	case err := <-done:
		switch {
		case err == nil:
			return nil
		case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipLost), errors.Is(err, raft.ErrRaftShutdown):
			return s.explain(err)
		}
		return fmt.Errorf("cannot change the engines: %w", err)
	}
}

package store

import (
	"context"
	"errors"
	"time"
)

// Barrier returns once all that was committed before is applied here. It
// writes an entry; it must be asked of the leader, ErrNotLeader otherwise.
func (s *Store) Barrier(ctx context.Context) error {
	return s.look(ctx, func(within time.Duration) error { return s.raft.Barrier(min(within, askWithin)).Error() })
}

// Verify returns once a majority of the voters has agreed that this engine
// still leads: a View taken after that holds all that was acknowledged to
// anybody before Verify was called. It costs a round trip and no entry, except
// for the first of each leadership. It must be asked of the leader,
// ErrNotLeader otherwise.
//
// This is the read index of Ongaro's thesis (2014, section 6.4) as raft's
// VerifyLeader does it: an answer that was on its way already counts too, so
// that it trusts clocks as much as the leader's lease does.
func (s *Store) Verify(ctx context.Context) error {
	term := s.raft.CurrentTerm()
	if s.caughtUp.Load() != term {
		// What leaders before have committed may not be applied here yet.
		if err := s.Barrier(ctx); err != nil {
			return err
		}
	}
	err := s.look(ctx, func(time.Duration) error { return s.raft.VerifyLeader().Error() })
	if err == nil && s.raft.CurrentTerm() != term {
		err = ErrNotLeader
	}
	if err == nil {
		s.caughtUp.Store(term)
	}
	return err
}

// look asks raft something that changes nothing.
func (s *Store) look(ctx context.Context, do func(time.Duration) error) error {
	_, err := s.ask(ctx, func(within time.Duration) outcome {
		if err := do(within); err != nil {
			return outcome{err: explain("cannot ask the other engines", err)}
		}
		return outcome{}
	})
	switch {
	case ctx.Err() != nil && errors.Is(err, ctx.Err()):
		return ctx.Err()
	case errors.Is(err, ErrLost):
		return ErrNotLeader // nothing is under way that could matter
	}
	return err
}

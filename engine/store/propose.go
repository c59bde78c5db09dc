package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"orch/engine/api"
	"orch/engine/state"
)

var (
	// ErrNotLeader says that another engine must be asked; Leader names it.
	ErrNotLeader error = notLeader{}
	// ErrLost says that a command's outcome is not known: it may or may not be
	// committed.
	ErrLost = errors.New("the change was under way and may still happen")

	errClosing = errors.New("the engine is shutting down")
)

// askWithin is how long raft may take to accept what nothing else limits.
const askWithin = 10 * time.Second

// Propose commits c, in the command set that it belongs to, and returns what
// applying it came to on this engine. A command that not every engine knows
// yet is refused: they would take it differently. An error means that the log didn't take it: nothing of it will happen, except
// after ErrLost (which a context's end is, too), when it may.
func (s *Store) Propose(ctx context.Context, c *api.Command) (state.Result, error) {
	c.Version = state.Set(c)
	if known := s.View().Cluster().GetVersion(); known > 0 && c.Version > known {
		return state.Result{}, fmt.Errorf("this needs every engine of the cluster upgraded: they know commands of set %d, and it is of set %d", known, c.Version)
	}
	data, err := proto.Marshal(c)
	if err != nil {
		return state.Result{}, fmt.Errorf("cannot encode the command: %w", err)
	}
	// Even to hand the command over can take long: raft waits for the disk.
	return s.ask(ctx, func(within time.Duration) outcome {
		f := s.raft.Apply(data, within)
		if err := f.Error(); err != nil {
			return outcome{err: explain("cannot write the raft log", err)}
		}
		r := f.Response().(state.Result)
		return outcome{r, r.Err}
	})
}

type outcome struct {
	result state.Result
	err    error
}

// ask hands something to raft and waits for what comes of it, as long as ctx
// allows and the disk takes writes.
func (s *Store) ask(ctx context.Context, do func(within time.Duration) outcome) (state.Result, error) {
	if err := ctx.Err(); err != nil {
		return state.Result{}, err
	}
	trouble, err := s.disk.state()
	if err != nil {
		return state.Result{}, err
	}
	within := askWithin
	if d, ok := ctx.Deadline(); ok {
		within = min(within, time.Until(d))
	}
	if !s.begin() {
		return state.Result{}, errClosing
	}
	done := make(chan outcome, 1)
	go func() { // ends when raft answers: Close waits for it
		defer s.asked.Done()
		done <- do(within)
	}()
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

// begin says whether raft may still be asked something.
func (s *Store) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closing {
		s.asked.Add(1)
	}
	return !s.closing
}

// explain puts raft's errors into the words of this package.
func explain(what string, err error) error {
	switch {
	case errors.Is(err, ErrLost):
		return err
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return ErrNotLeader
	case errors.Is(err, raft.ErrLeadershipLost):
		return ErrLost
	case errors.Is(err, raft.ErrRaftShutdown): // it may be committed, and never be applied here
		return fmt.Errorf("%w: %w", ErrLost, errClosing)
	}
	return fmt.Errorf("%s: %w", what, err)
}

type notLeader struct{}

func (notLeader) Error() string { return "this engine does not lead the cluster" }

// Again says that nothing was done, and that it can be tried again at once.
func (notLeader) Again() bool { return true }

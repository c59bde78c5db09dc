package store_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"google.golang.org/protobuf/types/known/timestamppb"

	"orch/engine/api"
	"orch/engine/state"
	"orch/engine/store"
)

// putRelease is a compare-and-set: it is taken if the stack's newest release
// is the one that it was based on.
func putRelease(stack string, base uint64, cause string) *api.Command {
	return &api.Command{
		Time: timestamppb.New(epoch), Version: state.CommandSet,
		Kind: &api.Command_PutRelease{PutRelease: &api.PutRelease{
			BaseRelease: base, Release: &api.Release{Stack: stack, Spec: &api.StackSpec{Name: stack}, Cause: cause},
		}},
	}
}

// stackOp is what a client asks of one stack: its newest release, or to put
// the next one.
type stackOp struct {
	stack string
	write bool
	base  uint64
	cause string
}

// stackIs is what it is told, and the model's state.
type stackIs struct {
	release uint64
	cause   string // of that release
	stale   bool   // a write: refused, the base was another
	unknown bool   // a write: it may or may not have happened, then or later
}

// stackModel is a register for each stack.
var stackModel = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		by := map[string][]porcupine.Operation{}
		for _, o := range history {
			stack := o.Input.(stackOp).stack
			by[stack] = append(by[stack], o)
		}
		var all [][]porcupine.Operation
		for _, h := range by {
			all = append(all, h)
		}
		return all
	},
	Init: func() any { return stackIs{} },
	Step: func(is, in, out any) (bool, any) {
		now, op, told := is.(stackIs), in.(stackOp), out.(stackIs)
		next := stackIs{release: now.release + 1, cause: op.cause}
		switch {
		case !op.write:
			return told == now, now
		case told.unknown && op.base == now.release:
			return true, next
		case told.unknown: // refused, or after all others
			return true, now
		case told.stale:
			return op.base != now.release, now
		}
		return op.base == now.release && told.release == next.release, next
	},
	DescribeOperation: func(in, out any) string {
		op, told := in.(stackOp), out.(stackIs)
		switch {
		case !op.write:
			return fmt.Sprintf("%s is %d %q", op.stack, told.release, told.cause)
		case told.unknown:
			return fmt.Sprintf("%s after %d: %q: unknown", op.stack, op.base, op.cause)
		case told.stale:
			return fmt.Sprintf("%s after %d: %q: stale", op.stack, op.base, op.cause)
		}
		return fmt.Sprintf("%s after %d: %q: %d", op.stack, op.base, op.cause, told.release)
	},
}

// history is what clients have seen.
type history struct {
	began   time.Time
	mu      sync.Mutex
	all     []porcupine.Operation
	clients int
}

func (h *history) client() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clients++
	return h.clients - 1
}

func (h *history) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.all)
}

func (h *history) add(client int, op stackOp, call time.Duration, told stackIs) {
	o := porcupine.Operation{ClientId: client, Input: op, Call: int64(call), Output: told, Return: int64(time.Since(h.began))}
	if told.unknown {
		o.Return = math.MaxInt64
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all, o)
}

// ask does one thing after the other with any member that says it leads, and
// records what it is told.
func (h *history) ask(ctx context.Context, g *group, r *rand.Rand) {
	client := h.client()
	known := map[string]uint64{}
	for n := 0; ctx.Err() == nil; n++ {
		select { // several tens of operations a round are enough to check
		case <-ctx.Done():
		case <-time.After(time.Duration(r.IntN(10)) * time.Millisecond):
		}
		s := g.pickLeader(r)
		if s == nil {
			continue
		}
		stack := fmt.Sprint("s", r.IntN(3))
		op := stackOp{stack: stack, write: r.IntN(2) == 0, base: known[stack], cause: fmt.Sprintf("%d.%d", client, n)}
		within, cancel := context.WithTimeout(ctx, time.Second)
		call := time.Since(h.began)
		told, err := one(within, s, op)
		cancel()
		if err != nil {
			continue // it didn't happen
		}
		h.add(client, op, call, told)
		if known[stack] = told.release; told.unknown {
			client = h.client() // this one is waiting still
		}
	}
}

// one is one operation. An error means that it has not happened.
func one(ctx context.Context, s *store.Store, op stackOp) (stackIs, error) {
	if !op.write {
		if err := s.Verify(ctx); err != nil {
			return stackIs{}, err
		}
		v := s.View()
		n := v.Stack(op.stack).GetRelease()
		return stackIs{release: n, cause: v.Release(op.stack, n).GetCause()}, nil
	}
	result, err := s.Propose(ctx, putRelease(op.stack, op.base, op.cause))
	var refusal *state.Refusal
	switch {
	case err == nil:
		return stackIs{release: result.Release, cause: op.cause}, nil
	case errors.Is(err, store.ErrLost):
		return stackIs{unknown: true}, nil
	case errors.As(err, &refusal) && refusal.Kind == state.Stale:
		return stackIs{stale: true, release: s.View().Stack(op.stack).GetRelease()}, nil
	}
	return stackIs{}, err
}

// Clients that compare and set, and read, through any member that takes itself
// for the leader see one history, whatever happens to hosts and links.
// ORCH_SOAK=200 does so many rounds of harm.
func TestLinearizable(t *testing.T) {
	t.Parallel()
	g, r, h := trio(t), seeded(t), &history{began: time.Now()}
	ctx, stop := context.WithCancel(context.Background())
	var clients sync.WaitGroup
	defer clients.Wait()
	defer stop()
	for range 5 {
		own := rand.New(rand.NewPCG(r.Uint64(), 0))
		clients.Go(func() { h.ask(ctx, g, own) })
	}
	for range rounds(t, 8) {
		enough := h.count() + 20
		g.round(t, r, func() bool { return h.count() >= enough })
	}
	stop()
	clients.Wait()
	unknown, writes := 0, 0
	for _, o := range h.all {
		if told := o.Output.(stackIs); told.unknown {
			unknown++
		} else if o.Input.(stackOp).write && !told.stale {
			writes++
		}
	}
	t.Logf("%d operations, %d of them writes that were taken, %d unknown", len(h.all), writes, unknown)
	result, info := porcupine.CheckOperationsVerbose(stackModel, h.all, 30*time.Second)
	if result == porcupine.Ok {
		return
	}
	picture := filepath.Join(os.TempDir(), fmt.Sprintf("orch-history-%d.html", os.Getpid()))
	if err := porcupine.VisualizePath(stackModel, info, picture); err != nil {
		t.Error(err)
	}
	t.Errorf("the history is %s: see %s", result, picture)
}

// The model itself finds what it is there to find.
func TestLinearModel(t *testing.T) {
	put := func(base uint64, cause string, told stackIs) porcupine.Operation {
		return porcupine.Operation{Input: stackOp{stack: "s", write: true, base: base, cause: cause}, Output: told}
	}
	look := func(told stackIs) porcupine.Operation {
		return porcupine.Operation{Input: stackOp{stack: "s"}, Output: told}
	}
	is := func(n uint64, cause string) stackIs { return stackIs{release: n, cause: cause} }
	for name, c := range map[string]struct {
		history []porcupine.Operation // one after the other
		want    porcupine.CheckResult
	}{
		"in order":         {[]porcupine.Operation{put(0, "a", is(1, "a")), look(is(1, "a")), put(0, "b", stackIs{stale: true})}, porcupine.Ok},
		"a lost write":     {[]porcupine.Operation{put(0, "a", is(1, "a")), look(is(0, ""))}, porcupine.Illegal},
		"two of one base":  {[]porcupine.Operation{put(0, "a", is(1, "a")), put(0, "b", is(1, "b"))}, porcupine.Illegal},
		"another's write":  {[]porcupine.Operation{put(0, "a", is(1, "a")), look(is(1, "b"))}, porcupine.Illegal},
		"stale for nought": {[]porcupine.Operation{put(0, "a", stackIs{stale: true})}, porcupine.Illegal},
		"unknown, it was":  {[]porcupine.Operation{put(0, "a", stackIs{unknown: true}), look(is(1, "a"))}, porcupine.Ok},
		"unknown, it wasn't": {[]porcupine.Operation{
			put(0, "a", stackIs{unknown: true}), look(is(0, "")), put(0, "b", is(1, "b")), look(is(1, "b"))}, porcupine.Ok},
		"unknown, undone": {[]porcupine.Operation{
			put(0, "a", stackIs{unknown: true}), look(is(1, "a")), look(is(0, ""))}, porcupine.Illegal},
	} {
		for i := range c.history {
			c.history[i].ClientId, c.history[i].Call, c.history[i].Return = i, int64(2*i), int64(2*i+1)
			if c.history[i].Output.(stackIs).unknown {
				c.history[i].Return = math.MaxInt64
			}
		}
		if got := porcupine.CheckOperations(stackModel, c.history); got != (c.want == porcupine.Ok) {
			t.Errorf("%s: linearizable is %t", name, got)
		}
	}
}

package store_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"orch/engine/api"
	"orch/engine/state"
	"orch/engine/store"
)

// putOperator is a command that costs as little with many rows as with few.
func putOperator(name string) *api.Command {
	return &api.Command{
		Time: timestamppb.New(epoch), Version: state.CommandSet,
		Kind: &api.Command_PutOperator{PutOperator: &api.Operator{Name: name, KeyDigest: "k", Role: "view"}},
	}
}

// ledger is what writers were told.
type ledger struct {
	mu                    sync.Mutex
	acknowledged, refused []string
	unknown               int
}

func (l *ledger) note(name string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err == nil:
		l.acknowledged = append(l.acknowledged, name)
	case errors.Is(err, store.ErrLost):
		l.unknown++
	default:
		l.refused = append(l.refused, name)
	}
}

func (l *ledger) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acknowledged)
}

// write proposes new names until ctx ends.
func (g *group) write(ctx context.Context, prefix string, l *ledger, r *rand.Rand) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s := g.pickLeader(r)
		if s == nil {
			continue
		}
		name := fmt.Sprintf("%s%06d", prefix, i)
		short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		_, err := s.Propose(short, putOperator(name))
		cancel()
		l.note(name, err)
	}
}

// Whatever happens to engines and to the network between them: no write that
// was acknowledged is lost, none that was refused is there, and all engines
// come to the same state.
func TestSoak(t *testing.T) {
	t.Parallel()
	r := seeded(t)
	g := trio(t)
	l := &ledger{}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var writers sync.WaitGroup
	for w := range 3 {
		chance := rand.New(rand.NewPCG(r.Uint64(), 0))
		writers.Go(func() { g.write(ctx, fmt.Sprintf("w%d-", w), l, chance) })
	}
	defer writers.Wait()
	defer cancel()
	n := rounds(t, 10)
	for i := range n {
		g.round(t, r, func() func() bool {
			enough := l.count() + 3
			return func() bool { return l.count() >= enough }
		}())
		if i%50 == 49 {
			t.Logf("round %d: %d acknowledged", i+1, l.count())
		}
	}
	cancel()
	writers.Wait()
	g.put(t, "end")
	within(t, fmt.Sprint(n, " rounds"), func() bool {
		first := dump(t, g.all[0].store())
		for _, m := range g.all {
			if m.store().View().Node("end") == nil || !bytes.Equal(dump(t, m.store()), first) {
				return false
			}
		}
		return true
	})
	v := g.all[0].store().View()
	for _, name := range l.acknowledged {
		if v.Operator(name) == nil {
			t.Errorf("%s was acknowledged and is lost", name)
		}
	}
	for _, name := range l.refused {
		if v.Operator(name) != nil {
			t.Errorf("%s was refused and is there", name)
		}
	}
	t.Logf("%d rounds: %d writes acknowledged, %d refused, %d unknown", n, len(l.acknowledged), len(l.refused), l.unknown)
}

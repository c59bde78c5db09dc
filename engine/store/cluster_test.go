package store_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"orch/engine/store"
)

// Engines stop and start while changes come: what was acknowledged stays, and
// all come to the same state.
func TestThreeStoresAgree(t *testing.T) {
	t.Parallel()
	g := trio(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	n := 0
	some := func(count int) {
		for range count {
			g.put(t, fmt.Sprintf("n%04d", n))
			n++
		}
	}
	some(20)
	for range 5 {
		m := g.all[r.IntN(len(g.all))]
		m.stop(t)
		some(r.IntN(30))
		for _, o := range g.others(m) {
			if err := o.store().Snapshot(); err != nil {
				t.Fatal(err)
			}
		}
		m.start(t)
		some(r.IntN(10))
	}
	agree(t, g.all, n)
}

// A leader whose followers are gone takes nothing; alone it steps down, and
// when they are back all goes on.
func TestMinorityTakesNothing(t *testing.T) {
	t.Parallel()
	g := trio(t)
	g.put(t, "both")
	agree(t, g.all, 1)
	leader := g.leader(t)
	for _, m := range g.others(leader) {
		m.stop(t)
	}
	s := leader.store()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := s.Propose(ctx, putNode("minority")); !errors.Is(err, store.ErrLost) && !errors.Is(err, store.ErrNotLeader) {
		t.Errorf("got %v", err)
	}
	eventually(t, func() bool { return !s.Leads() })
	if s.View().Node("minority") != nil {
		t.Error("it was applied without a quorum")
	}
	for _, m := range g.others(leader) {
		m.start(t)
	}
	g.put(t, "after")
	eventually(t, func() bool {
		for _, m := range g.all {
			if m.store().View().Node("after") == nil {
				return false
			}
		}
		return true
	})
}

// An engine that ends hands leadership over first: there is no gap as long
// as an election.
func TestLeadershipIsHandedOver(t *testing.T) {
	t.Parallel()
	g := trio(t)
	g.put(t, "n")
	agree(t, g.all, 1)
	g.leader(t).stop(t)
	g.put(t, "m")
}

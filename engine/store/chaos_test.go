package store_test

import (
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"orch/engine/store"
)

// seeded is a source of chance that ORCH_SEED repeats. (What is repeated is
// what is done, not when raft comes to it.)
func seeded(t testing.TB) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	if given := os.Getenv("ORCH_SEED"); given != "" {
		n, err := strconv.ParseUint(given, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seed = n
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("to repeat it: ORCH_SEED=%d", seed)
		}
	})
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// disturb does something bad to g and tells what.
func (g *group) disturb(t testing.TB, r *rand.Rand) string {
	t.Helper()
	m := g.all[r.IntN(len(g.all))]
	if leader := g.leaderNow(); leader != nil && r.IntN(2) == 0 {
		m = leader
	}
	o := g.others(m)[r.IntN(len(g.all)-1)]
	f := []fault{silent, closed}[r.IntN(2)]
	how := map[fault]string{silent: "silently", closed: "with a reset"}[f]
	switch r.IntN(9) {
	case 0, 1:
		if m.store() != nil {
			m.kill(t)
		}
		return "kill " + m.id
	case 2, 3:
		g.set(f, g.links(m)...)
		return "cut off " + m.id + " " + how
	case 4:
		g.set(f, link{m.id, o.id}, link{o.id, m.id})
		return "part " + m.id + " and " + o.id + " " + how
	case 5:
		g.set(f, link{m.id, o.id})
		return "cut " + m.id + " to " + o.id + " " + how
	case 6:
		g.set(deaf, link{m.id, o.id})
		return "hold answers of " + o.id + " to " + m.id
	case 7:
		if s := m.store(); s != nil {
			if err := s.Transfer(t.Context()); err != nil {
				return "no transfer from " + m.id + ": " + err.Error()
			}
		}
		return "transfer from " + m.id
	default:
		for _, m := range g.all {
			if m.store() != nil {
				m.kill(t)
			}
		}
		for _, m := range g.all {
			m.start(t)
		}
		return "kill and start all"
	}
}

// mend heals the network and starts who doesn't run. Now and then a log is
// cut first, so that who comes back needs a snapshot.
func (g *group) mend(t testing.TB, r *rand.Rand) {
	t.Helper()
	if r.IntN(3) == 0 {
		for _, m := range g.all {
			if s := m.store(); s != nil {
				if err := s.Snapshot(); err != nil {
					t.Errorf("%s: %v", m.id, err)
				}
			}
		}
	}
	g.heal()
	for _, m := range g.all {
		if m.store() == nil {
			m.start(t)
		}
	}
}

// canLead says whether some majority of three could go on: two that run and
// reach each other.
func (g *group) canLead() bool {
	for i, m := range g.all {
		for _, o := range g.all[i+1:] {
			if m.store() != nil && o.store() != nil && g.talk(m.id, o.id) {
				return true
			}
		}
	}
	return false
}

// talk says whether two members reach each other.
func (n *network) talk(a, b string) bool {
	ab, _ := n.now(link{a, b})
	ba, _ := n.now(link{b, a})
	return ab == whole && ba == whole
}

// rounds of a soak: ORCH_SOAK, or otherwise.
func rounds(t testing.TB, otherwise int) int {
	t.Helper()
	if testing.Short() {
		otherwise = min(otherwise, 3)
	}
	given := os.Getenv("ORCH_SOAK")
	if given == "" {
		return otherwise
	}
	n, err := strconv.Atoi(given)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// round disturbs g in one to three ways, waits until that has told (which is
// until progress is made, where it must be), and mends all.
func (g *group) round(t testing.TB, r *rand.Rand, progress func() bool) {
	t.Helper()
	var what []string
	for range 1 + r.IntN(3) {
		what = append(what, g.disturb(t, r))
	}
	if g.canLead() {
		within(t, strings.Join(what, "; "), progress)
	} else {
		t := time.NewTimer(time.Duration(r.IntN(3)) * quick.Election)
		<-t.C
	}
	g.mend(t, r)
	within(t, "mended after "+strings.Join(what, "; "), progress)
}

// within is eventually with words for what didn't come to pass.
func within(t testing.TB, after string, is func() bool) {
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Log("no progress: " + after)
		}
	}()
	eventually(t, is)
}

// pickLeader is a store to ask: one that believes to lead, at random; nil if
// there is none.
func (g *group) pickLeader(r *rand.Rand) *store.Store {
	for _, i := range r.Perm(len(g.all)) {
		if s := g.all[i].store(); s != nil && s.Leads() {
			return s
		}
	}
	return nil
}

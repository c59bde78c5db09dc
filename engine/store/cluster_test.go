package store_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"orch/engine/ca"
	"orch/engine/store"
)

// member is one engine's store behind a TLS port of its own.
type member struct {
	id, dir, address string
	server, dial     *tls.Config
	listener         net.Listener
	layer            *store.Layer
	store            *store.Store
	serving          sync.WaitGroup
	threshold        uint64
}

func newMember(t *testing.T, a *ca.Authority, id string) *member {
	t.Helper()
	m := &member{id: id, dir: t.TempDir(), address: "127.0.0.1:0", threshold: 40}
	w, err := a.Wallet(ca.Subject{Role: ca.Engine, ID: id})
	if err != nil {
		t.Fatal(err)
	}
	m.server, m.dial = w.Server(), w.Client(ca.ProtoRaft)
	return m
}

func (m *member) start(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp", m.address)
	if err != nil {
		t.Fatal(err)
	}
	m.listener, m.address = l, l.Addr().String()
	m.layer = store.NewLayer(l.Addr(), m.dial)
	m.serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			m.serving.Go(func() { m.layer.Serve(tls.Server(c, m.server)) })
		}
	})
	c := config(m.dir)
	c.NodeID, c.Layer = m.id, m.layer
	c.Timing = store.Timing{Heartbeat: 150 * time.Millisecond, Election: 150 * time.Millisecond, Lease: 100 * time.Millisecond}
	c.TrailingLogs, c.SnapshotThreshold = 10, m.threshold
	m.store = open(t, c)
}

func (m *member) stop(t *testing.T) {
	t.Helper()
	m.listener.Close()
	if err := m.store.Close(); err != nil {
		t.Error(err)
	}
	m.layer.Close()
	m.serving.Wait()
	m.store = nil
}

func trio(t *testing.T) []*member {
	t.Helper()
	a, err := ca.New()
	if err != nil {
		t.Fatal(err)
	}
	all := []*member{newMember(t, a, "a"), newMember(t, a, "b"), newMember(t, a, "c")}
	for _, m := range all {
		m.start(t)
	}
	t.Cleanup(func() {
		for _, m := range all {
			if m.store != nil {
				m.stop(t)
			}
		}
	})
	first := all[0].store
	if err := first.Bootstrap(); err != nil {
		t.Fatal(err)
	}
	eventually(t, first.Leads)
	for _, m := range all[1:] {
		if err := first.AddVoter(t.Context(), m.id, m.address); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// put proposes to whoever leads until one takes it. What ErrLost was said of
// may have happened: putNode twice is the same.
func put(t *testing.T, all []*member, name string) {
	t.Helper()
	eventually(t, func() bool {
		for _, m := range all {
			if m.store == nil || !m.store.Leads() {
				continue
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_, err := m.store.Propose(ctx, putNode(name))
			cancel()
			switch {
			case err == nil:
				return true
			case errors.Is(err, store.ErrNotLeader), errors.Is(err, store.ErrLost):
			default:
				t.Logf("%s: %v", m.id, err)
			}
		}
		return false
	})
}

func agree(t *testing.T, all []*member, want int) {
	t.Helper()
	eventually(t, func() bool {
		first := dump(t, all[0].store)
		for _, m := range all {
			if len(m.store.View().Nodes()) != want || !bytes.Equal(dump(t, m.store), first) {
				return false
			}
		}
		return true
	})
}

// Engines stop and start while changes come: what was acknowledged stays, and
// all come to the same state.
func TestThreeStoresAgree(t *testing.T) {
	all := trio(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	n := 0
	some := func(count int) {
		for range count {
			put(t, all, fmt.Sprintf("n%04d", n))
			n++
		}
	}
	some(20)
	for range 6 {
		m := all[r.IntN(len(all))]
		m.stop(t)
		some(r.IntN(40)) // above the threshold, it needs a snapshot to catch up
		m.start(t)
		some(r.IntN(10))
	}
	agree(t, all, n)
}

// A leader whose followers are gone takes nothing; alone it steps down, and
// when they are back all goes on.
func TestMinorityTakesNothing(t *testing.T) {
	all := trio(t)
	put(t, all, "both")
	agree(t, all, 1)
	var leader *member
	eventually(t, func() bool {
		for _, m := range all {
			if m.store.Leads() {
				leader = m
			}
		}
		return leader != nil
	})
	for _, m := range all {
		if m != leader {
			m.stop(t)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := leader.store.Propose(ctx, putNode("minority")); !errors.Is(err, store.ErrLost) && !errors.Is(err, store.ErrNotLeader) {
		t.Errorf("got %v", err)
	}
	eventually(t, func() bool { return !leader.store.Leads() })
	if leader.store.View().Node("minority") != nil {
		t.Error("it was applied without a quorum")
	}
	for _, m := range all {
		if m != leader {
			m.start(t)
		}
	}
	put(t, all, "after")
	eventually(t, func() bool {
		for _, m := range all {
			if m.store.View().Node("after") == nil {
				return false
			}
		}
		return true
	})
}

// An engine that ends hands leadership over first: there is no gap as long
// as an election.
func TestLeadershipIsHandedOver(t *testing.T) {
	all := trio(t)
	put(t, all, "n")
	agree(t, all, 1)
	for _, m := range all {
		if m.store.Leads() {
			m.stop(t)
			break
		}
	}
	put(t, all, "m")
}

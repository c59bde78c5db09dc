package store_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"orch/engine/ca"
	"orch/engine/store"
)

// member is one engine's store behind a TLS port of its own.
type member struct {
	id, dir, address string
	host             string // of address
	timing           store.Timing
	key              []byte // that its folder is encrypted with
	network          *network
	server, dial     *tls.Config
	listener         net.Listener
	layer            *store.Layer
	running          atomic.Pointer[store.Store]
	serving          sync.WaitGroup
	stopped          chan struct{}
}

// store is nil while the member doesn't run.
func (m *member) store() *store.Store { return m.running.Load() }

func (m *member) config() store.Config {
	c := config(m.dir)
	c.NodeID, c.Address, c.Layer, c.Timing, c.Key = m.id, m.address, tap{m.layer, m.network, m.id}, m.timing, m.key
	c.TrailingLogs = 10
	return c
}

func (m *member) start(t testing.TB) {
	t.Helper()
	l, err := net.Listen("tcp", m.address)
	if err != nil {
		t.Fatal(err)
	}
	m.listener, m.address = l, l.Addr().String()
	m.layer = store.NewLayer(l.Addr(), m.dial)
	m.network.here(m.id, m.address)
	m.serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			m.serving.Go(func() { m.layer.Serve(tls.Server(c, m.server)) })
		}
	})
	s := open(t, m.config())
	m.stopped = make(chan struct{})
	m.serving.Go(func() {
		for {
			select { // raft waits for who doesn't listen
			case <-s.Leading():
			case <-m.stopped:
				return
			}
		}
	})
	m.running.Store(s)
}

// stop ends a member as its operator would.
func (m *member) stop(t testing.TB) {
	t.Helper()
	m.end(t, (*store.Store).Close)
}

// kill ends it as a crash would: nothing that it says is heard any more.
func (m *member) kill(t testing.TB) {
	t.Helper()
	m.network.away(m.id)
	m.end(t, (*store.Store).Kill)
}

func (m *member) end(t testing.TB, how func(*store.Store) error) {
	t.Helper()
	s := m.running.Swap(nil)
	m.listener.Close()
	if err := how(s); err != nil {
		t.Error(err)
	}
	m.network.away(m.id)
	m.layer.Close()
	close(m.stopped)
	m.serving.Wait()
}

// move gives a member that doesn't run another address.
func (m *member) move() { m.address = net.JoinHostPort(m.host, "0") }

// wipe gives it an empty folder.
func (m *member) wipe(t testing.TB) { m.dir = t.TempDir() }

// group is several members and the network between them. All are ended with
// the test.
type group struct {
	*network
	authority *ca.Authority
	timing    store.Timing
	all       []*member
}

// quick elections let tests be quick.
var quick = store.Timing{Heartbeat: 150 * time.Millisecond, Election: 150 * time.Millisecond, Lease: 100 * time.Millisecond}

func newGroup(t testing.TB, timing store.Timing, ids ...string) *group {
	t.Helper()
	a, err := ca.New()
	if err != nil {
		t.Fatal(err)
	}
	g := &group{network: newNetwork(), authority: a, timing: timing}
	t.Cleanup(func() {
		g.heal()
		for _, m := range g.all {
			if m.store() != nil {
				m.stop(t)
			}
		}
	})
	for _, id := range ids {
		g.add(t, id)
	}
	return g
}

var hosts atomic.Uint32

// add starts another member, which belongs to no cluster yet. Each has a host
// address of its own, so that no other process takes its port while it is
// down; each second one's folder is encrypted.
func (g *group) add(t testing.TB, id string) *member {
	t.Helper()
	n := hosts.Add(1)
	m := &member{id: id, dir: t.TempDir(), timing: g.timing, network: g.network, host: fmt.Sprintf("127.77.%d.%d", n/250, n%250+1)}
	if n%2 == 0 {
		m.key = bytes.Repeat([]byte{byte(n)}, 32)
	}
	w, err := g.authority.Wallet(ca.Subject{Role: ca.Engine, ID: id})
	if err != nil {
		t.Fatal(err)
	}
	m.server, m.dial = w.Server(), w.Client(ca.ProtoRaft)
	m.move()
	m.start(t)
	g.all = append(g.all, m)
	return m
}

// trio is a cluster of three.
func trio(t testing.TB) *group {
	t.Helper()
	g := newGroup(t, quick, "a", "b", "c")
	g.form(t)
	return g
}

// form makes all members voters of one cluster that the first begins.
func (g *group) form(t testing.TB) {
	t.Helper()
	first := g.all[0].store()
	if err := first.Bootstrap(); err != nil {
		t.Fatal(err)
	}
	eventually(t, first.Leads)
	for _, m := range g.all[1:] {
		g.join(t, m)
	}
}

// asks does something with the store of whoever leads, until it is done.
func (g *group) asks(t testing.TB, do func(context.Context, *store.Store) error) {
	t.Helper()
	eventually(t, func() bool {
		for _, m := range g.all {
			s := m.store()
			if s == nil || !s.Leads() {
				continue
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			err := do(ctx, s)
			cancel()
			if err == nil {
				return true
			}
			if !errors.Is(err, store.ErrNotLeader) && !errors.Is(err, store.ErrLost) {
				t.Logf("%s: %v", m.id, err)
			}
		}
		return false
	})
}

// join adds a member, as engines do: it catches up before it has a vote.
func (g *group) join(t testing.TB, m *member) {
	t.Helper()
	g.asks(t, func(ctx context.Context, s *store.Store) error { return s.AddNonvoter(ctx, m.id, m.address) })
	eventually(t, func() bool { return m.store().Applied() > 0 })
	g.asks(t, func(ctx context.Context, s *store.Store) error { return s.AddVoter(ctx, m.id, m.address) })
}

// remove takes a member out.
func (g *group) remove(t testing.TB, m *member) {
	t.Helper()
	g.asks(t, func(ctx context.Context, s *store.Store) error { return s.Remove(ctx, m.id) })
}

// put proposes until it is done. What ErrLost was said of may have happened:
// putNode twice is the same.
func (g *group) put(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		g.asks(t, func(ctx context.Context, s *store.Store) error {
			_, err := s.Propose(ctx, putNode(name))
			return err
		})
	}
}

// leader waits for one that a majority follows.
func (g *group) leader(t testing.TB) *member {
	t.Helper()
	var found *store.Store
	g.asks(t, func(ctx context.Context, s *store.Store) error {
		found = s
		return s.Verify(ctx)
	})
	for _, m := range g.all {
		if m.store() == found {
			return m
		}
	}
	t.Fatal("the leader has ended")
	return nil
}

// others are all but those.
func (g *group) others(those ...*member) []*member {
	var left []*member
	for _, m := range g.all {
		is := false
		for _, o := range those {
			is = is || o == m
		}
		if !is {
			left = append(left, m)
		}
	}
	return left
}

// links are those between m and the others, both ways.
func (g *group) links(m *member) []link {
	var all []link
	for _, o := range g.others(m) {
		all = append(all, link{m.id, o.id}, link{o.id, m.id})
	}
	return all
}

// agree waits until members have the same state, with so many nodes.
func agree(t testing.TB, all []*member, nodes int) {
	t.Helper()
	eventually(t, func() bool {
		first := dump(t, all[0].store())
		for _, m := range all {
			if len(m.store().View().Nodes()) != nodes || !bytes.Equal(dump(t, m.store()), first) {
				return false
			}
		}
		return true
	})
}

package ingress

import (
	"context"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"orch/agent/sockets"
	"orch/engine/api"
)

const (
	// hold is how long a connection waits for a task to come into rotation.
	hold = 30 * time.Second
	// held connections at most wait per port.
	held        = 1024
	dialTimeout = 2 * time.Second
	// unreachedFor is the pause before a target that wasn't reached is tried
	// again, where there is no other.
	unreachedFor = 250 * time.Millisecond
)

// front is one published port. Its mutex guards targets and counts.
type front struct {
	counters *counters    // nil: nothing is counted
	service  string       // guarded by mu
	only     netip.Prefix // who is let in; invalid: everybody. guarded by mu
	hostIP   string
	port     uint32
	address  string // of both
	protocol string
	inside   bool // the address may not be there yet
	logger   *slog.Logger
	sockets  *sockets.Set
	cancel   context.CancelFunc
	tried    chan struct{} // closed once it listens, or can't
	lame     atomic.Bool   // another process listens from now on; what is open here goes on
	dial     func(context.Context, *api.Target) (net.Conn, error)
	ended    func()

	mu         sync.Mutex
	closed     string // why nobody can listen; "" if all is well
	targets    []*api.Target
	counts     map[string]int // connections, or requests, by task
	turn       int            // where to begin among equals
	proxied    bool           // tasks are told the client's address
	steered    bool           // fresh targets get newPercent of what comes
	newPercent int
	flows      flows // udp
	waiting    int
	news       chan struct{} // closed when targets change
}

// letsIn says whether a client may connect.
func (f *front) letsIn(client netip.Addr) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.only.IsValid() || f.only.Contains(client.Unmap())
}

// gated is a listener that closes the connections of those who aren't let in.
type gated struct {
	net.Listener
	front *front
}

// Accept implements net.Listener.
func (g gated) Accept() (net.Conn, error) {
	for {
		c, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if a, ok := c.RemoteAddr().(*net.TCPAddr); ok && !g.front.letsIn(a.AddrPort().Addr()) {
			c.Close()
			continue
		}
		return c, nil
	}
}

func (f *front) set(r *api.Route) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.service = r.Service
	f.only, _ = netip.ParsePrefix(r.Only)
	f.proxied, f.steered, f.newPercent = r.ProxyProtocol, r.Steered, int(r.NewPercent)
	targets := r.Targets
	if slices.EqualFunc(f.targets, targets, func(a, b *api.Target) bool { return proto.Equal(a, b) }) {
		return
	}
	f.targets = targets
	if f.protocol == "udp" && f.ended != nil { // then what was asked of those that left is over
		time.AfterFunc(answerWithin, f.ended)
	}
	close(f.news)
	f.news = make(chan struct{})
}

// tries are the targets that one connection, or request, was sent to: whether
// they can have seen it, or weren't reached at all.
type tries map[string]bool

// pick reserves a target that isn't among the tried ones: with steered traffic
// of the version whose turn it is, if it has any; of those that aren't suspect
// the one with the fewest connections. nil: there is none.
func (f *front) pick(tried tries) (best *api.Target) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(tried) == 0 {
		f.turn++
	}
	// Of 100 turns in a row, newPercent are the new version's, evenly spread.
	fresh := f.turn*f.newPercent%100 < f.newPercent
	for i := range f.targets {
		t := f.targets[(f.turn+i)%len(f.targets)]
		if _, was := tried[t.TaskId]; !was && (best == nil || f.better(t, best, fresh)) {
			best = t
		}
	}
	if best != nil {
		f.counts[best.TaskId]++
	}
	return best
}

// next is pick, held while there is none; nil: not before ctx ended, or too
// many wait. Those that weren't reached are tried again after a while.
func (f *front) next(ctx context.Context, tried tries) *api.Target {
	for {
		f.mu.Lock()
		news := f.news
		f.mu.Unlock()
		if target := f.pick(tried); target != nil {
			return target
		}
		some, cancel := ctx, context.CancelFunc(func() {})
		if slices.Contains(slices.Collect(maps.Values(tried)), false) {
			some, cancel = context.WithTimeout(ctx, unreachedFor)
		}
		changed := f.wait(some, news)
		late := some.Err() != nil
		cancel()
		switch {
		case changed:
			clear(tried)
		case !late || ctx.Err() != nil:
			return nil
		default:
			maps.DeleteFunc(tried, func(_ string, seen bool) bool { return !seen })
		}
	}
}

// better says that a goes before b.
func (f *front) better(a, b *api.Target, fresh bool) bool {
	switch {
	case f.steered && a.Fresh != b.Fresh:
		return a.Fresh == fresh
	case a.Suspect != b.Suspect:
		return b.Suspect
	}
	return f.counts[a.TaskId] < f.counts[b.TaskId]
}

func (f *front) release(t *api.Target) {
	f.mu.Lock()
	if f.counts[t.TaskId]--; f.counts[t.TaskId] == 0 {
		delete(f.counts, t.TaskId)
	}
	out := !slices.ContainsFunc(f.targets, func(o *api.Target) bool { return o.TaskId == t.TaskId })
	f.mu.Unlock()
	if out && f.ended != nil {
		f.ended()
	}
}

// count notes how a request, or opening a connection, to a target went.
func (f *front) count(t *api.Target, began time.Time, failed bool) {
	if f.counters == nil {
		return
	}
	f.mu.Lock()
	service := f.service
	f.mu.Unlock()
	now := time.Now()
	f.counters.count(service, t.Version, now, now.Sub(began), failed)
}

// reach connects to a target, here or by the relay of its node.
func (f *front) reach(ctx context.Context, t *api.Target) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if t.Node == "" || f.dial == nil {
		network := "tcp"
		if t.Udp {
			network = "udp"
		}
		return (&net.Dialer{}).DialContext(ctx, network, t.Address)
	}
	c, err := f.dial(ctx, t)
	if err != nil {
		return nil, &unreachable{err}
	}
	return c, nil
}

// unreachable is why there was no connection to a target.
type unreachable struct{ error }

func (u *unreachable) Unwrap() error { return u.error }

// wait holds until the targets change; it says whether they did.
func (f *front) wait(ctx context.Context, news <-chan struct{}) bool {
	f.mu.Lock()
	if f.waiting >= held {
		f.mu.Unlock()
		return false
	}
	f.waiting++
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		f.waiting--
		f.mu.Unlock()
	}()
	select {
	case <-ctx.Done():
		return false
	case <-news:
		return true
	}
}

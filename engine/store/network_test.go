package store_test

import (
	"net"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"orch/engine/store"
)

// network is what members reach each other by: TCP and TLS as they are, but
// links can be cut. A link is what one member dials another by; the answers
// come back on it.
type network struct {
	mu      sync.Mutex
	ids     map[string]string // by address
	faults  map[link]fault
	gone    map[string]bool // members that don't run
	wires   map[*wire]bool
	dialed  map[link]int  // attempts
	asked   map[link]int  // writes of the one that dialed
	changed chan struct{} // closed when a fault is changed, and made anew
}

type link struct{ from, to string }

// fault is what is wrong with a link.
type fault int

const (
	whole  fault = iota
	silent       // all is held back, and goes on later: a cable that is out
	deaf         // only the answers are held back
	closed       // connections end, and none can be made: a process that is gone
)

func newNetwork() *network {
	return &network{
		ids: map[string]string{}, faults: map[link]fault{}, gone: map[string]bool{},
		wires: map[*wire]bool{}, dialed: map[link]int{}, asked: map[link]int{}, changed: make(chan struct{}),
	}
}

// set puts a fault on links.
func (n *network) set(f fault, links ...link) {
	n.change(func() {
		for _, l := range links {
			n.faults[l] = f
		}
	})
}

// heal makes all links whole.
func (n *network) heal() { n.change(func() { clear(n.faults) }) }

// here and away tell that a member runs or doesn't.
func (n *network) here(id, address string) {
	n.change(func() {
		n.gone[id] = false
		n.ids[address] = id
	})
}

func (n *network) away(id string) { n.change(func() { n.gone[id] = true }) }

func (n *network) change(do func()) {
	n.mu.Lock()
	do()
	close(n.changed)
	n.changed = make(chan struct{})
	var ended []*wire
	for w := range n.wires {
		if n.fault(w.link) == closed {
			ended = append(ended, w)
		}
	}
	n.mu.Unlock()
	for _, w := range ended {
		w.Close()
	}
}

func (n *network) fault(l link) fault {
	if n.gone[l.from] || n.gone[l.to] {
		return closed
	}
	return n.faults[l]
}

// now is a link's fault, and what closes when it may have changed.
func (n *network) now(l link) (fault, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.fault(l), n.changed
}

// writes counts what was asked on a link.
func (n *network) writes(l link) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.asked[l]
}

// dials counts attempts to make a connection.
func (n *network) dials(l link) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dialed[l]
}

// tap is a member's layer on the network.
type tap struct {
	*store.Layer
	network *network
	id      string
}

// Close ends the connections that a fault holds, too.
func (t tap) Close() error {
	t.network.away(t.id)
	return t.Layer.Close()
}

// dialWithin is how long a real dial waits for a host that doesn't answer.
const dialWithin = time.Second

// refused is an address where nobody listens.
const refused = "127.0.0.1:1"

func (t tap) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	t.network.mu.Lock()
	w := &wire{network: t.network, link: link{t.id, t.network.ids[string(address)]}, ended: make(chan struct{})}
	t.network.dialed[w.link]++
	t.network.mu.Unlock()
	w.late = time.Now().Add(min(timeout, dialWithin))
	switch err := w.wait(silent, deaf); err {
	case nil:
	case net.ErrClosed:
		return t.Layer.Dial(refused, timeout)
	default:
		return nil, err
	}
	c, err := t.Layer.Dial(address, timeout)
	if err != nil {
		return nil, err
	}
	w.Conn, w.late = c, time.Time{}
	t.network.mu.Lock()
	t.network.wires[w] = true
	t.network.mu.Unlock()
	return w, nil
}

// wire is a connection that its link's faults bear upon.
type wire struct {
	net.Conn
	network *network
	link    link
	once    sync.Once
	ended   chan struct{}

	mu   sync.Mutex
	late time.Time
}

func (w *wire) Close() error {
	w.once.Do(func() {
		close(w.ended)
		w.network.mu.Lock()
		delete(w.network.wires, w)
		w.network.mu.Unlock()
	})
	return w.Conn.Close()
}

func (w *wire) SetDeadline(t time.Time) error {
	w.mu.Lock()
	w.late = t
	w.mu.Unlock()
	return w.Conn.SetDeadline(t)
}

// wait lasts as long as the link has one of the faults.
func (w *wire) wait(held ...fault) error {
	w.mu.Lock()
	late := w.late
	w.mu.Unlock()
	var timeout <-chan time.Time
	if !late.IsZero() {
		t := time.NewTimer(time.Until(late))
		defer t.Stop()
		timeout = t.C
	}
	for {
		now, changed := w.network.now(w.link)
		if now == closed {
			return net.ErrClosed
		}
		holds := false
		for _, f := range held {
			holds = holds || f == now
		}
		if !holds {
			return nil
		}
		select {
		case <-changed:
		case <-w.ended:
			return net.ErrClosed
		case <-timeout:
			return os.ErrDeadlineExceeded
		}
	}
}

// Read gives what came once the link lets it through.
func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if err != nil {
		return n, err
	}
	if err := w.wait(silent, deaf); err != nil {
		return 0, err // what came is lost: raft closes a connection that failed
	}
	return n, nil
}

func (w *wire) Write(p []byte) (int, error) {
	if err := w.wait(silent); err != nil {
		return 0, err
	}
	w.network.mu.Lock()
	w.network.asked[w.link]++
	w.network.mu.Unlock()
	return w.Conn.Write(p)
}

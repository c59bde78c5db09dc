// Package network is a node's data plane: it keeps published ports leading
// to the tasks in rotation. A connection goes to the task with the fewest;
// one that can't be connected to is passed over for another.
package network

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"
)

// Route is one published port.
type Route struct {
	Address string   // host:port to listen on
	Targets []string // host:port of the tasks in rotation; may be empty
}

const (
	// hold is how long a connection waits for a task to come into rotation.
	hold = 30 * time.Second
	// held connections at most wait per port.
	held        = 1024
	dialTimeout = 2 * time.Second
	rebind      = 2 * time.Second
)

// Publisher listens on the published ports.
type Publisher struct {
	Logger *slog.Logger

	mu     sync.Mutex
	ctx    context.Context
	fronts map[string]*front
	work   sync.WaitGroup
}

// front is one published port. Its mutex guards targets and counts.
type front struct {
	address string
	cancel  context.CancelFunc

	mu      sync.Mutex
	targets []string
	counts  map[string]int
	waiting int
	news    chan struct{} // closed when targets change
}

// Run serves until ctx ends and all its connections are closed.
func (p *Publisher) Run(ctx context.Context) error {
	p.mu.Lock()
	p.ctx = ctx
	for _, f := range p.fronts {
		p.open(f)
	}
	p.mu.Unlock()
	<-ctx.Done()
	p.mu.Lock()
	p.ctx = nil
	p.mu.Unlock()
	p.work.Wait()
	return ctx.Err()
}

// Publish replaces all routes. Connections that are open stay.
func (p *Publisher) Publish(routes []Route) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fronts == nil {
		p.fronts = map[string]*front{}
	}
	wanted := map[string]bool{}
	for _, r := range routes {
		wanted[r.Address] = true
		f := p.fronts[r.Address]
		if f == nil {
			f = &front{address: r.Address, counts: map[string]int{}, news: make(chan struct{})}
			p.fronts[r.Address] = f
			p.open(f)
		}
		f.set(r.Targets)
	}
	for address, f := range p.fronts {
		if !wanted[address] {
			delete(p.fronts, address)
			if f.cancel != nil {
				f.cancel()
			}
		}
	}
}

// open begins to listen; p.mu is held.
func (p *Publisher) open(f *front) {
	if p.ctx == nil || f.cancel != nil {
		return
	}
	conns := p.ctx
	ctx, cancel := context.WithCancel(p.ctx)
	f.cancel = cancel
	p.work.Go(func() { p.listen(ctx, conns, f) })
}

// listen accepts until ctx ends; connections go on until conns does.
func (p *Publisher) listen(ctx, conns context.Context, f *front) {
	said := false
	for ctx.Err() == nil {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", f.address)
		if err != nil {
			if !said && ctx.Err() == nil {
				said = true
				p.Logger.Error("cannot publish a port; trying again until it is free", "address", f.address, "error", err)
			}
			pause(ctx, rebind)
			continue
		}
		stop := context.AfterFunc(ctx, func() { l.Close() })
		for {
			c, err := l.Accept()
			if err != nil {
				break
			}
			p.work.Go(func() { f.serve(conns, c) })
		}
		stop()
		l.Close()
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

func (f *front) set(targets []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.targets = targets
	close(f.news)
	f.news = make(chan struct{})
}

// pick reserves the target with the fewest connections that isn't among the
// tried ones; "" if there is none.
func (f *front) pick(tried map[string]bool) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	best := ""
	for _, t := range f.targets {
		if !tried[t] && (best == "" || f.counts[t] < f.counts[best]) {
			best = t
		}
	}
	if best != "" {
		f.counts[best]++
	}
	return best
}

func (f *front) release(target string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.counts[target]--; f.counts[target] == 0 {
		delete(f.counts, target)
	}
}

func (f *front) serve(ctx context.Context, client net.Conn) {
	defer client.Close()
	stop := context.AfterFunc(ctx, func() { client.Close() })
	defer stop()
	target, server := f.connect(ctx)
	if server == nil {
		return
	}
	defer f.release(target)
	defer server.Close()
	stopServer := context.AfterFunc(ctx, func() { server.Close() })
	defer stopServer()
	splice(client, server)
}

// connect finds a task that answers, holding the connection while none is in
// rotation.
func (f *front) connect(ctx context.Context) (string, net.Conn) {
	ctx, cancel := context.WithTimeout(ctx, hold)
	defer cancel()
	tried := map[string]bool{}
	for {
		f.mu.Lock()
		news := f.news
		f.mu.Unlock()
		if target := f.pick(tried); target != "" {
			d := net.Dialer{Timeout: dialTimeout}
			if c, err := d.DialContext(ctx, "tcp", target); err == nil {
				return target, c
			}
			f.release(target)
			tried[target] = true
			continue
		}
		if !f.wait(ctx, news) {
			return "", nil
		}
		clear(tried)
	}
}

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

// splice copies both ways; the end of one direction is passed on, so that
// half-closed connections work.
func splice(a, b net.Conn) {
	var both sync.WaitGroup
	oneWay := func(to, from net.Conn) {
		_, err := io.Copy(to, from)
		if err != nil && !errors.Is(err, io.EOF) {
			to.Close()
			from.Close()
			return
		}
		if half, ok := to.(interface{ CloseWrite() error }); ok {
			half.CloseWrite()
		}
	}
	both.Go(func() { oneWay(a, b) })
	both.Go(func() { oneWay(b, a) })
	both.Wait()
}

// Package ingress keeps a node's published ports leading to the tasks in
// rotation. A connection goes to the task with the fewest; one that can't be
// connected to is passed over for another.
package ingress

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"orch/agent/sockets"
	"orch/engine/api"
)

// rebind is how soon a port that is taken is tried again.
const rebind = 2 * time.Second

// Publisher listens on the published ports.
type Publisher struct {
	Logger *slog.Logger
	// Sockets are where it gets those that it listens on; nil: of its own.
	Sockets *sockets.Set
	// Dial connects to a target; nil: only those of this node can be reached.
	Dial func(context.Context, *api.Target) (net.Conn, error)
	// Closed, if set, is called when a port can't be listened on, or can again, or
	// needn't any more.
	Closed func()
	// Ended, if set, is called when a connection has ended to a task that is
	// out of rotation.
	Ended func()

	counters counters

	mu     sync.Mutex
	ctx    context.Context
	lame   bool
	fronts map[string]*front
	closed []*front // that may have connections still
	work   sync.WaitGroup
}

// Start has it serve from now on; Run must follow.
func (p *Publisher) Start(ctx context.Context) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ctx = ctx
	for _, f := range p.fronts {
		p.open(f)
	}
}

// Run serves until ctx ends and all its connections are closed.
func (p *Publisher) Run(ctx context.Context) error {
	p.Start(ctx)
	<-ctx.Done()
	p.mu.Lock()
	p.ctx = nil
	p.mu.Unlock()
	p.work.Wait()
	return ctx.Err()
}

// Publish replaces all routes. Connections that are open stay. While it runs, it
// returns once all ports are listened on, or were tried.
func (p *Publisher) Publish(routes []*api.Route) {
	for _, f := range p.publish(routes) {
		<-f.tried
	}
}

// publish gives the fronts that have begun to listen, or will.
func (p *Publisher) publish(routes []*api.Route) (begun []*front) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forget()
	if p.fronts == nil {
		p.fronts = map[string]*front{}
	}
	wanted := map[string]bool{}
	for _, r := range routes {
		address := net.JoinHostPort(r.HostIp, strconv.FormatUint(uint64(r.Port), 10))
		key := address + "/" + r.Protocol
		wanted[key] = true
		f := p.fronts[key]
		if f == nil {
			f = &front{counters: &p.counters, hostIP: r.HostIp, port: r.Port, address: address, sockets: p.Sockets, inside: r.Inside, protocol: r.Protocol, logger: p.Logger, dial: p.Dial, ended: p.Ended, counts: map[string]int{}, news: make(chan struct{}), tried: make(chan struct{})}
			p.fronts[key] = f
			p.open(f)
		}
		f.set(r)
		if f.cancel != nil {
			begun = append(begun, f)
		}
	}
	for key, f := range p.fronts {
		if !wanted[key] {
			delete(p.fronts, key)
			p.closed = append(p.closed, f)
			if f.cancel != nil {
				f.cancel()
			}
			if p.Closed != nil { // it may have been one
				p.Closed()
			}
		}
	}
	return begun
}

// Retire ends listening, for good: another process does it on the same sockets.
// What is open goes on, and HTTP's connections end with their next answer. It
// returns once nothing is left, or Run's context has ended.
func (p *Publisher) Retire() {
	p.mu.Lock()
	p.lame = true
	for _, f := range p.fronts {
		f.lame.Store(true)
		if f.cancel != nil {
			f.cancel()
		}
	}
	p.mu.Unlock()
	p.work.Wait()
}

// open begins to listen; p.mu is held.
func (p *Publisher) open(f *front) {
	if p.ctx == nil || f.cancel != nil || p.lame {
		return
	}
	conns := p.ctx
	ctx, cancel := context.WithCancel(p.ctx)
	f.cancel = cancel
	p.work.Go(func() { p.listen(ctx, conns, f) })
}

// listen accepts until ctx ends; connections go on until conns does.
func (p *Publisher) listen(ctx, conns context.Context, f *front) {
	tried := sync.OnceFunc(func() { close(f.tried) })
	defer tried()
	said := false
	up := func() { p.closes(f, ""); tried() }
	failed := func(err error) {
		p.closes(f, plainly(err))
		tried()
		if !said && ctx.Err() == nil {
			said = true
			p.Logger.Error("cannot publish a port; trying again until it is free", "address", f.address, "error", err)
		}
		pause(ctx, rebind)
	}
	for ctx.Err() == nil {
		if f.protocol == "udp" {
			if err := f.serveUDP(ctx, up); err != nil {
				failed(err)
			}
			continue
		}
		l, err := f.sockets.Listen(ctx, "tcp", f.address, f.inside)
		if err != nil {
			failed(err)
			continue
		}
		l = gated{l, f}
		up()
		if f.protocol == "http" {
			f.serveHTTP(ctx, conns, l)
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

// closes notes why a front can't listen; "": it does.
func (p *Publisher) closes(f *front, why string) {
	f.mu.Lock()
	changed := f.closed != why
	f.closed = why
	f.mu.Unlock()
	if changed && p.Closed != nil {
		p.Closed()
	}
}

// plainly is why a port can't be listened on, without the words of the call.
func plainly(err error) string {
	var no syscall.Errno
	if errors.As(err, &no) {
		return no.Error()
	}
	return err.Error()
}

// ClosedPorts are those that can't be listened on, in order.
func (p *Publisher) ClosedPorts() (all []*api.ClosedPort) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(p.fronts)) {
		f := p.fronts[key]
		f.mu.Lock()
		if f.closed != "" {
			all = append(all, &api.ClosedPort{HostIp: f.hostIP, Port: f.port, Protocol: f.protocol, Why: f.closed})
		}
		f.mu.Unlock()
	}
	return all
}

// InFlight counts the connections to the tasks named, where there are any.
// Those of ports that are no longer published count as well.
func (p *Publisher) InFlight(tasks map[string]bool) map[string]uint32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := map[string]uint32{}
	count := func(f *front) {
		f.mu.Lock()
		defer f.mu.Unlock()
		for task, n := range f.counts {
			if tasks[task] {
				all[task] += uint32(n)
			}
		}
		for task, n := range f.flows.unanswered() {
			if tasks[task] {
				all[task] += n
			}
		}
	}
	for _, f := range p.fronts {
		count(f)
	}
	for _, f := range p.closed {
		count(f)
	}
	return all
}

// forget forgets ports that were closed and have no connections any more; p.mu
// is held.
func (p *Publisher) forget() {
	p.closed = slices.DeleteFunc(p.closed, func(f *front) bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.counts) == 0
	})
}

package carrier

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"orch/agent/detached"
	"orch/engine/api"
)

const (
	// within that time a carrier does what it is told.
	within = 10 * time.Second
	// again is the pause before a carrier that couldn't be started is tried again.
	again = time.Second
)

// Carrier is a node's, as its agent knows it. All methods are safe for
// concurrent use; Run must run.
type Carrier struct {
	Dir string // the carriers' own, which others needn't be able to reach
	// Admission is what the carrier shows to other nodes; nil: it doesn't reach
	// them, nor they it.
	Admission func() *api.Admission
	// Changed is called when RelayPort or ClosedPorts may say something else.
	Changed func()
	// Ended is called when a connection has ended to a task out of rotation.
	Ended  func()
	Logger *slog.Logger

	change sync.Mutex // held while something is told, so that it stays in order
	said   string     // why there is no carrier; guarded by change

	mu        sync.Mutex
	ctx       context.Context // of Run
	all       []*peer         // that live; the last one listens, unless it retired
	published *api.Published  // nil: not known yet
	names     *api.Names
	relay     uint32 // the relay's port; 0: none
	closed    []*api.ClosedPort
	watching  sync.WaitGroup
}

// Run keeps a carrier at work until ctx ends; the carrier goes on. up is closed
// once it can be told something.
func (c *Carrier) Run(ctx context.Context, up chan<- struct{}) error {
	c.mu.Lock()
	c.ctx = ctx
	c.mu.Unlock()
	defer c.watching.Wait()
	c.keep()
	close(up)
	<-ctx.Done()
	c.mu.Lock()
	c.ctx = nil
	all := c.all
	c.all = nil
	c.mu.Unlock()
	for _, p := range all {
		p.close()
	}
	return ctx.Err()
}

// keep makes sure that there is a carrier, if one is needed, and tries again as
// long as there is none.
func (c *Carrier) keep() {
	c.change.Lock()
	defer c.change.Unlock()
	ctx := c.running()
	if ctx == nil {
		return
	}
	err := c.ensure(ctx)
	if err == nil || ctx.Err() != nil {
		c.said = ""
		return
	}
	if text := err.Error(); text != c.said {
		c.said = text
		c.Logger.Error("published ports, names and tasks of other nodes are not reached; trying again", "error", err)
	}
	time.AfterFunc(again, c.keep)
}

func (c *Carrier) running() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ctx
}

// needed says that there is something to carry; c.mu is held.
func (c *Carrier) needed() bool {
	return c.Admission != nil || len(c.published.GetRoutes()) > 0 || len(c.names.GetZones()) > 0
}

// ensure finds the carrier that listens, or starts one; c.change is held.
func (c *Carrier) ensure(ctx context.Context) error {
	if c.active() != nil {
		return nil
	}
	if err := c.find(ctx); err != nil {
		return err
	}
	c.mu.Lock()
	needed := c.needed()
	c.mu.Unlock()
	if c.active() != nil || !needed {
		return nil
	}
	return c.start(ctx, nil)
}

// active is the carrier that listens.
func (c *Carrier) active() *peer {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.all) == 0 || c.all[len(c.all)-1].retired.Load() {
		return nil
	}
	return c.all[len(c.all)-1]
}

// find gets in touch with the carriers that an agent before this one has started.
func (c *Carrier) find(ctx context.Context) error {
	for _, number := range c.numbers() {
		c.mu.Lock()
		known := slices.ContainsFunc(c.all, func(p *peer) bool { return p.number == number })
		c.mu.Unlock()
		if known {
			continue
		}
		p := dial(c.Dir, number)
		hello, err := p.hello(ctx)
		if ctx.Err() != nil {
			p.close()
			return ctx.Err()
		}
		if err != nil { // it was killed
			p.close()
			_ = os.Remove(filepath.Join(c.Dir, asked(number)))
			_ = os.Remove(filepath.Join(c.Dir, gives(number)))
			continue
		}
		p.pid = int(hello.Pid)
		p.retired.Store(hello.Retired)
		c.add(p)
		if !hello.Retired {
			c.mu.Lock()
			c.relay = hello.RelayPort
			c.mu.Unlock()
			if err := c.admit(ctx, p); err != nil {
				return err
			}
		}
	}
	return nil
}

// numbers are those of the carriers whose sockets are there, in order.
func (c *Carrier) numbers() (all []int) {
	entries, _ := os.ReadDir(c.Dir) // none, if there is no folder
	for _, e := range entries {
		if n, ok := numbered(e.Name()); ok {
			all = append(all, n)
		}
	}
	slices.Sort(all)
	return all
}

// start starts a carrier, after the one whose sockets it takes (nil: after none),
// and tells it all that is known; c.change is held.
func (c *Carrier) start(ctx context.Context, before *peer) error {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return err
	}
	number, predecessor := 1, 0
	if all := c.numbers(); len(all) > 0 {
		number = all[len(all)-1] + 1
	}
	if before != nil {
		predecessor = before.number
	}
	starting, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	if err := detached.Start(starting, arg, []string{c.Dir, strconv.Itoa(number), strconv.Itoa(predecessor)}); err != nil {
		return fmt.Errorf("cannot start %s: %w", arg, err)
	}
	p := dial(c.Dir, number)
	err := func() error {
		hello, err := p.hello(ctx)
		if err != nil {
			return err
		}
		p.pid = int(hello.Pid)
		if err := c.admit(ctx, p); err != nil {
			return err
		}
		c.mu.Lock()
		published, names := c.published, c.names
		c.mu.Unlock()
		if err := p.publish(ctx, published); err != nil {
			return err
		}
		return p.resolve(ctx, names)
	}()
	if err != nil {
		p.end(ctx)
		p.close()
		return err
	}
	c.add(p)
	if before != nil {
		before.retire(ctx)
	}
	return nil
}

// add has a carrier watched.
func (c *Carrier) add(p *peer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx == nil {
		p.close()
		return
	}
	ctx := c.ctx
	c.all = append(c.all, p)
	c.watching.Go(func() { c.watch(ctx, p) })
}

// watch takes what a carrier tells, until it has ended.
func (c *Carrier) watch(ctx context.Context, p *peer) {
	for ctx.Err() == nil {
		_ = p.watch(ctx, func(e *api.CarrierEvent) {
			for _, r := range e.Records {
				c.log(ctx, r)
			}
			if e.Ended {
				c.Ended()
			}
			if e.Closed != nil && !p.retired.Load() {
				c.closes(e.Closed.Ports)
			}
		})
		if ctx.Err() != nil {
			return
		}
		if _, err := p.hello(ctx); err != nil {
			break
		}
	}
	if ctx.Err() != nil {
		return
	}
	c.mu.Lock()
	listened := !p.retired.Load()
	c.all = slices.DeleteFunc(c.all, func(o *peer) bool { return o == p })
	c.mu.Unlock()
	p.close()
	c.Ended() // nothing is in flight there any more
	if listened {
		c.Logger.Warn("the process of the published ports has died; another one is started", "pid", p.pid)
		if time.Since(p.since) < again { // not faster than anybody can look
			time.AfterFunc(again, c.keep)
			return
		}
		c.keep()
	}
}

func (c *Carrier) closes(ports []*api.ClosedPort) {
	c.mu.Lock()
	changed := !slices.EqualFunc(c.closed, ports, func(a, b *api.ClosedPort) bool { return proto.Equal(a, b) })
	c.closed = ports
	c.mu.Unlock()
	if changed {
		c.Changed()
	}
}

func (c *Carrier) log(ctx context.Context, r *api.LogRecord) {
	all := make([]any, len(r.Attributes))
	for i, a := range r.Attributes {
		all[i] = a
	}
	c.Logger.Log(ctx, slog.Level(r.Level), r.Message, all...)
}

func (c *Carrier) admit(ctx context.Context, p *peer) error {
	if c.Admission == nil {
		return nil
	}
	a := c.Admission()
	c.mu.Lock()
	if c.relay > 0 { // others know it
		a.Port = c.relay
	}
	c.mu.Unlock()
	port, err := p.admit(ctx, a)
	if err != nil || p.retired.Load() { // where one listened is nobody's way any more
		return err
	}
	c.mu.Lock()
	changed := c.relay != port
	c.relay = port
	c.mu.Unlock()
	if changed {
		c.Changed()
	}
	return nil
}

// End ends all carriers and what they carry, and returns once they are gone. To
// be called after Run has ended.
func (c *Carrier) End(ctx context.Context) error {
	var all []error
	for _, number := range c.numbers() {
		p := dial(c.Dir, number)
		all = append(all, p.end(ctx))
		p.close()
	}
	return errors.Join(append(all, os.RemoveAll(c.Dir))...)
}

package carrier

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"connectrpc.com/connect"
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
	// Changed is called when RelayPort may say something else.
	Changed func()
	// Ended is called when a connection has ended to a task out of rotation.
	Ended  func()
	Logger *slog.Logger

	change sync.Mutex // held while something is told, so that it stays in order

	mu        sync.Mutex
	ctx       context.Context // of Run
	all       []*peer         // that live; the last one listens, unless it retired
	published *api.Published  // nil: not known yet
	names     *api.Names
	relay     uint32 // the relay's port; 0: none
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
	if err := c.ensure(ctx); err != nil && ctx.Err() == nil {
		c.Logger.Error("published ports, names and tasks of other nodes are not reached; trying again", "error", err)
		time.AfterFunc(again, c.keep)
	}
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
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return err
	}
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
	if err != nil {
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

// Admit tells the carriers that the credentials are others.
func (c *Carrier) Admit() {
	c.change.Lock()
	defer c.change.Unlock()
	ctx := c.running()
	if ctx == nil {
		return
	}
	for _, p := range c.peers() {
		if err := c.admit(ctx, p); err != nil && ctx.Err() == nil {
			c.Logger.Warn("a carrier goes on with old credentials", "pid", p.pid, "error", err)
		}
	}
}

// RelayPort is where other nodes reach the tasks here; 0: nowhere yet.
func (c *Carrier) RelayPort() uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.relay
}

func (c *Carrier) peers() []*peer {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.all)
}

// Publish replaces what is published, and returns once it is in effect. A
// carrier of another version is replaced now, when it is known what to carry.
func (c *Carrier) Publish(all *api.Published) error {
	return c.tell(func() {
		if c.published == nil || !proto.Equal(c.published, all) {
			c.published = all
		}
	})
}

// Resolve replaces the names, and returns once they are in effect.
func (c *Carrier) Resolve(n *api.Names) error {
	err := c.tell(func() {
		if c.names == nil || !proto.Equal(c.names, n) {
			c.names = n
		}
	})
	if err != nil {
		return err
	}
	return c.renew()
}

// tell tells all carriers what they don't know; note is called with c.mu held.
func (c *Carrier) tell(note func()) error {
	c.change.Lock()
	defer c.change.Unlock()
	c.mu.Lock()
	note()
	ctx, published, names := c.ctx, c.published, c.names
	c.mu.Unlock()
	if ctx == nil {
		return errors.New("the agent isn't at work")
	}
	if err := c.ensure(ctx); err != nil {
		return err
	}
	for _, p := range c.peers() {
		err := p.publish(ctx, published)
		if err == nil {
			err = p.resolve(ctx, names)
		}
		if err != nil && !p.retired.Load() { // one that retired ends whenever it likes
			return err
		}
	}
	return nil
}

// renew replaces a carrier that isn't this program's.
func (c *Carrier) renew() error {
	c.change.Lock()
	defer c.change.Unlock()
	ctx, p := c.running(), c.active()
	if ctx == nil || p == nil || p.published == nil || p.same() {
		return nil
	}
	c.Logger.Info("the process of the published ports is replaced by one of this version", "pid", p.pid)
	return c.start(ctx, p)
}

// InFlight counts the connections to the tasks named, where there are any.
func (c *Carrier) InFlight(tasks map[string]bool) map[string]uint32 {
	all := map[string]uint32{}
	ctx := c.running()
	if ctx == nil || len(tasks) == 0 {
		return all
	}
	for _, p := range c.peers() {
		for task, n := range p.inFlight(ctx, slices.Sorted(maps.Keys(tasks))) {
			if tasks[task] {
				all[task] += n
			}
		}
	}
	return all
}

// Traffic is what went to one version of a service through this node's ports,
// see api.TrafficQuery.
func (c *Carrier) Traffic(ctx context.Context, q *api.TrafficQuery) (*api.TrafficCount, error) {
	sum := &api.TrafficCount{Latency: make([]uint64, api.LatencyBuckets)}
	for _, p := range c.peers() {
		r, err := p.asks.Traffic(ctx, connect.NewRequest(q))
		if err != nil {
			if p.retired.Load() {
				continue
			}
			return nil, err
		}
		sum.Requests += r.Msg.Requests
		sum.Failures += r.Msg.Failures
		for i, n := range r.Msg.Latency[:min(len(r.Msg.Latency), len(sum.Latency))] {
			sum.Latency[i] += n
		}
	}
	return sum, nil
}

// Inspect looks at what can go wrong, also on the way to other nodes.
func (c *Carrier) Inspect(ctx context.Context, nodes []string) (*api.Inspection, error) {
	p := c.active()
	if p == nil {
		return &api.Inspection{}, nil
	}
	r, err := p.asks.Inspect(ctx, connect.NewRequest(&api.InspectRequest{Nodes: nodes}))
	if err != nil {
		return nil, err
	}
	return r.Msg, nil
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

package carrier

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"orch/engine/api"
)

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

// ClosedPorts are the published ones that nobody can connect to here.
func (c *Carrier) ClosedPorts() []*api.ClosedPort {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

func (c *Carrier) peers() []*peer {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.all)
}

// Publish replaces what is published, and returns once it is in effect.
func (c *Carrier) Publish(all *api.Published) error {
	return c.tell(func() {
		if c.published == nil || !proto.Equal(c.published, all) {
			c.published = all
		}
	})
}

// Resolve replaces the names, and returns once they are in effect. A carrier of
// another version is replaced then, when it is known what to carry.
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

// InFlight counts the connections to the tasks named, where there are any; where
// that can't be told now it is one each, and Ended is called later.
func (c *Carrier) InFlight(tasks map[string]bool) map[string]uint32 {
	all := map[string]uint32{}
	ctx := c.running()
	if ctx == nil || len(tasks) == 0 {
		return all
	}
	names := slices.Sorted(maps.Keys(tasks))
	for _, p := range c.peers() {
		counts, sure := p.inFlight(ctx, names)
		for _, task := range names {
			n := counts[task]
			if !sure {
				n = 1
			}
			if n > 0 {
				all[task] += n
			}
		}
		if !sure {
			time.AfterFunc(again, c.Ended)
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

package network

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"orch/engine/api"
)

// Carrier brings connections and requests to tasks, and answers tasks that ask
// for names. What it is told is in effect once it returns.
type Carrier interface {
	Publish(*api.Published) error
	Resolve(*api.Names) error
	// InFlight counts connections to the tasks named, where there are any.
	InFlight(tasks map[string]bool) map[string]uint32
}

// Overlayer leads to the tasks of other nodes.
type Overlayer interface{ Overlay(*api.Overlay) }

// Virtualizer leads from virtual addresses to tasks, in the namespaces given;
// it says which of them, by their tasks, are as they should be, and whether one
// isn't that may be the next time.
type Virtualizer interface {
	Virtual([]*api.Namespace) (settled map[string]bool, again bool)
}

// retry is the pause before what failed is tried again.
const retry = 2 * time.Second

// Plane puts the endpoint table into effect on a node. All methods are safe
// for concurrent use.
type Plane struct {
	Node    string // id
	Carrier Carrier
	// What makes networks reach across hosts; nil where the host can't. Names are
	// known where there are virtual addresses.
	Overlay Overlayer
	Virtual Virtualizer
	// PortsFile is where the ports inside this host are written down; "": nowhere.
	PortsFile string
	Logger    *slog.Logger // nil: slog.Default()

	once    sync.Once
	changed chan struct{} // Followed may say something else
	dirty   chan struct{} // the table, or what is known locally, changed

	mu      sync.Mutex
	table   table
	local   map[string]Local
	applied uint64 // epoch in effect
	inside  *insides

	said string // why the newest table isn't in effect; Run's own
}

// Known says that there is a table.
func (p *Plane) Known() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.table.services != nil
}

func (p *Plane) init() {
	p.once.Do(func() { p.changed, p.dirty = make(chan struct{}, 1), make(chan struct{}, 1) })
}

// Run works until ctx ends.
func (p *Plane) Run(ctx context.Context) error {
	p.init()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.dirty:
			p.apply()
		}
	}
}

// apply puts the table into effect. Before there is one, all stays as the agent
// before this one has left it.
func (p *Plane) apply() {
	p.mu.Lock()
	if p.table.services == nil {
		p.mu.Unlock()
		return
	}
	epoch, published := p.table.epoch, p.table.published(p.Node, p.local)
	p.ports().keep(p.table.services)
	published.Routes = append(published.Routes, p.table.inside(p.Node, p.local, p.ports())...)
	var overlay *api.Overlay
	var namespaces []*api.Namespace
	if p.Overlay != nil {
		overlay = p.table.overlay(p.Node)
	}
	if p.Virtual != nil {
		namespaces = p.table.namespaces(p.Node, p.local, p.ports())
	}
	p.mu.Unlock()
	failed := p.Carrier.Publish(published)
	if p.Overlay != nil {
		p.Overlay.Overlay(overlay)
	}
	var settled map[string]bool
	if p.Virtual != nil {
		var again bool
		if settled, again = p.Virtual.Virtual(namespaces); again {
			time.AfterFunc(retry, func() { poke(p.dirty) })
		}
	}
	names := &api.Names{}
	if p.Virtual != nil {
		p.mu.Lock()
		names = p.table.names(p.Node, p.local, settled)
		p.mu.Unlock()
	}
	if failed == nil {
		failed = p.Carrier.Resolve(names)
	}
	if p.report(failed) {
		p.mu.Lock()
		p.applied = epoch
		p.mu.Unlock()
		p.Ended()
	}
}

// report tells once why the table can't be put into effect, and has it tried
// again; it says whether all is well.
func (p *Plane) report(failed error) (ok bool) {
	text := ""
	if failed != nil {
		text = failed.Error()
		time.AfterFunc(retry, func() { poke(p.dirty) })
	}
	if text != p.said && text != "" {
		cmp.Or(p.Logger, slog.Default()).Error("what leads to tasks can't be brought up to date; trying again", "error", failed)
	}
	p.said = text
	return failed == nil
}

// ports are those inside this host; p.mu is held.
func (p *Plane) ports() *insides {
	if p.inside == nil {
		var err error
		if p.inside, err = openInsides(p.PortsFile); err != nil {
			cmp.Or(p.Logger, slog.Default()).Error("services get new ports inside this host", "error", err)
			p.inside = &insides{file: p.PortsFile, ports: map[string]uint32{}, seen: map[string]bool{}}
		}
	}
	return p.inside
}

// Follow takes the endpoint table, or what changed of it, from the engine.
func (p *Plane) Follow(m *api.Endpoints) {
	p.init()
	p.mu.Lock()
	p.table.follow(m)
	p.mu.Unlock()
	poke(p.dirty)
}

// Local replaces what is known of the node's own tasks.
func (p *Plane) Local(tasks map[string]Local) {
	p.init()
	p.mu.Lock()
	p.local = tasks
	p.mu.Unlock()
	poke(p.dirty)
}

// Nodes are those of the cluster, in the order of their names.
func (p *Plane) Nodes() []*api.EndpointNode {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := slices.Collect(maps.Values(p.table.nodes))
	slices.SortFunc(all, func(a, b *api.EndpointNode) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// Subnets are those of the cluster's networks.
func (p *Plane) Subnets() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []string
	for _, n := range p.table.networks {
		all = append(all, n.Subnet)
	}
	return all
}

// Changed has a value when Followed may say something else.
func (p *Plane) Changed() <-chan struct{} {
	p.init()
	return p.changed
}

// Ended tells that a connection to a task out of rotation may have ended.
func (p *Plane) Ended() {
	p.init()
	poke(p.changed)
}

// Followed says which epoch is in effect, and what is in flight to draining
// tasks.
func (p *Plane) Followed() *api.Followed {
	p.mu.Lock()
	epoch, draining := p.applied, p.table.draining()
	p.mu.Unlock()
	return &api.Followed{Epoch: epoch, InFlight: p.Carrier.InFlight(draining)}
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

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

// Publisher listens on published ports.
type Publisher interface {
	Publish([]*api.Route)
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

// Namer answers tasks that ask for names.
type Namer interface{ Names(*api.Names) }

// retry is the pause before what failed is tried again.
const retry = 2 * time.Second

// Plane puts the endpoint table into effect on a node. All methods are safe
// for concurrent use.
type Plane struct {
	Node      string // id
	Publisher Publisher
	// What makes networks reach across hosts; nil where the host can't.
	Overlay Overlayer
	Virtual Virtualizer
	Names   Namer
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

func (p *Plane) apply() {
	p.mu.Lock()
	epoch, routes := p.table.epoch, p.table.routes(p.Node, p.local)
	if p.table.services != nil {
		p.ports().keep(p.table.services)
		routes = append(routes, p.table.inside(p.Node, p.local, p.ports())...)
	}
	var overlay *api.Overlay
	var namespaces []*api.Namespace
	if p.Overlay != nil {
		overlay = p.table.overlay(p.Node)
	}
	if p.Virtual != nil {
		namespaces = p.table.namespaces(p.Node, p.local, p.ports())
	}
	p.mu.Unlock()
	p.Publisher.Publish(routes)
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
	if p.Names != nil {
		p.mu.Lock()
		names := p.table.names(p.Node, p.local, settled)
		p.mu.Unlock()
		p.Names.Names(names)
	}
	p.mu.Lock()
	p.applied = epoch
	p.mu.Unlock()
	p.Ended()
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

// Lookup is where a task of this node listens that other nodes may connect to.
func (p *Plane) Lookup(task string, port uint32) (address string, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.table.lookup(task, port, p.Node, p.local)
}

// Relay is where another node's tasks are reached; ok is false if nowhere.
func (p *Plane) Relay(node string) (address string, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	address = p.table.nodes[node].GetRelay()
	return address, address != ""
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

// Knows says whether a node is one of the cluster's.
func (p *Plane) Knows(node string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.table.nodes[node] != nil
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
	return &api.Followed{Epoch: epoch, InFlight: p.Publisher.InFlight(draining)}
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

package network

import (
	"context"
	"sync"

	"orch/engine/api"
)

// Publisher listens on published ports.
type Publisher interface {
	Publish([]*api.Route)
	// InFlight counts connections to the tasks named, where there are any.
	InFlight(tasks map[string]bool) map[string]uint32
}

// Plane puts the endpoint table into effect on a node. All methods are safe
// for concurrent use.
type Plane struct {
	Node      string // id
	Publisher Publisher

	once    sync.Once
	changed chan struct{} // Followed may say something else
	dirty   chan struct{} // the table, or what is known locally, changed

	mu      sync.Mutex
	table   table
	local   map[string]Local
	applied uint64 // epoch in effect
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
	p.mu.Unlock()
	p.Publisher.Publish(routes)
	p.mu.Lock()
	p.applied = epoch
	p.mu.Unlock()
	p.Ended()
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

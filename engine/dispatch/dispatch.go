package dispatch

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"orch/engine/api"
	"orch/engine/ca"
	"orch/engine/state"
)

const (
	heartbeat = time.Second
	// downAfter without a word a node is down, with or without a session.
	downAfter = 3 * time.Second
)

// Store is what sessions need of the replicated state.
type Store interface {
	Propose(context.Context, *api.Command) (state.Result, error)
	View() state.View
}

// Watcher tells what changed.
type Watcher interface {
	Wake() <-chan struct{}
	Take() (changes []state.Change, all bool)
	Stop()
}

// Opener decrypts a secret's value.
type Opener func(name string, sealed []byte) ([]byte, error)

// Dispatcher implements the AgentService of the leader.
type Dispatcher struct {
	Store Store
	Watch func() Watcher
	Open  Opener
	// Membership, if set, is what a node is told of the cluster.
	Membership func(v state.View, node string) *api.Membership
	Logger     *slog.Logger

	mu       sync.Mutex
	sessions map[string]*session  // by node id
	heard    map[string]time.Time // by node id: when it was heard of last
	leading  bool
	reports  batch
	logs     subscriptions
	commands pending[*api.ExecResult]
	asks     pending[*api.Answer]
	ring     ring
	nodes    nodes
	once     sync.Once
	news     chan struct{} // what Followed says may have changed
}

// Run serves sessions until ctx ends; only a leader runs it.
func (d *Dispatcher) Run(ctx context.Context) error {
	w := d.Watch()
	defer w.Stop()
	d.mu.Lock()
	d.sessions, d.heard = map[string]*session{}, map[string]time.Time{}
	d.leading = true
	d.ring.reset(d.Store.View().Index()) // after the watch began: nothing is missed
	d.nodes = nodes{}
	d.mu.Unlock()
	defer d.stop()
	var work sync.WaitGroup
	defer work.Wait()
	work.Go(func() { d.reports.run(ctx, d.Store) })
	work.Go(func() { d.supervise(ctx) })
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.Wake():
			changes, all := w.Take()
			d.notify(changes, all)
		}
	}
}

func (d *Dispatcher) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.leading = false
	for _, s := range d.sessions {
		s.close()
	}
}

// membership is what the node is told of the cluster; nil: nothing.
func (d *Dispatcher) membership(node string) *api.Membership {
	if d.Membership == nil {
		return nil
	}
	return d.Membership(d.Store.View(), node)
}

// notify wakes the sessions of the nodes whose tasks changed, and all where
// the engines or the CA did.
func (d *Dispatcher) notify(changes []state.Change, all bool) {
	nodes := map[string]bool{} // with their tasks, or themselves, changed
	moved := map[string]bool{}
	everywhere := all
	for _, c := range changes {
		for _, delta := range c.Deltas {
			for _, row := range []any{delta.Before, delta.After} {
				switch row := row.(type) {
				case *api.Task:
					nodes[row.GetNodeId()] = true
				case *api.Node:
					nodes[row.GetId()], moved[row.GetId()] = true, true
					if after, ok := delta.After.(*api.Node); !ok || after == nil {
						d.dismiss(row.GetId())
					}
				case *api.Cluster:
					everywhere = true
				}
			}
			everywhere = everywhere || engineMoved(delta)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	turned := all
	for _, c := range changes {
		turned = d.ring.note(c) || turned
	}
	if all {
		d.ring.reset(d.Store.View().Index())
	}
	for id, s := range d.sessions {
		s.moved = s.moved || everywhere || moved[id]
		if everywhere || nodes[id] || turned && s.follows {
			s.poke()
		}
	}
	if len(moved) > 0 {
		d.tell() // one that is down holds nobody up any more
	}
}

// dismiss ends the session of a node that was removed.
func (d *Dispatcher) dismiss(node string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.sessions[node]; s != nil {
		s.close()
	}
}

// engineMoved says that the list of engines changed.
func engineMoved(d state.Delta) bool {
	before, _ := d.Before.(*api.Node)
	after, _ := d.After.(*api.Node)
	return engineAt(before) != engineAt(after)
}

// engineAt is the address of a node's engine; empty where it is none.
func engineAt(n *api.Node) string {
	if n.GetRole() != string(ca.Engine) {
		return ""
	}
	return n.GetEngineAddress()
}

// supervise marks nodes down that were not heard of for downAfter, and up
// those that are there. A new leader gives every node that time to find it.
func (d *Dispatcher) supervise(ctx context.Context) {
	began := time.Now()
	tick := time.NewTicker(heartbeat / 10)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := time.Now()
		var all []*api.EndpointNode
		for _, n := range d.Store.View().Nodes() {
			d.mu.Lock()
			last, known := d.heard[n.Id]
			connected := d.sessions[n.Id] != nil
			d.mu.Unlock()
			if !known {
				last = began
			}
			all = append(all, endpointNode(n, n.Status != "up" || now.Sub(last) >= suspectAfter))
			set := &api.SetNode{Id: n.Id}
			switch heard := now.Sub(last) < downAfter; {
			case n.Status == "up" && !heard:
				set.Status, set.StatusReason = "down", "it has not been heard of for "+downAfter.String()
			case n.Status != "up" && heard && connected:
				set.Status = "up" // its session began while it was being marked down
			default:
				continue
			}
			_, err := d.Store.Propose(ctx, &api.Command{
				Time: timestamppb.New(now), Kind: &api.Command_SetNode{SetNode: set},
			})
			if err != nil && ctx.Err() == nil {
				d.Logger.Warn("cannot mark a node "+set.Status, "node", n.Name, "error", err)
			}
		}
		d.know(all)
	}
}

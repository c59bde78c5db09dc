package dispatch

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
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

// session is one agent's stream. Its mutex is the dispatcher's.
type session struct {
	node   string
	wake   chan struct{}
	queue  []*api.EngineMessage // log requests and commands
	moved  bool                 // what it was told of the cluster may be old
	closed chan struct{}
	end    sync.Once

	follows  bool          // its agent follows the endpoint table
	followed *api.Followed // what it said last
}

func (s *session) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *session) close() { s.end.Do(func() { close(s.closed) }) }

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

// Session implements api.AgentService.
func (d *Dispatcher) Session(ctx context.Context, stream *connect.BidiStream[api.AgentMessage, api.EngineMessage]) error {
	first, err := stream.Receive()
	if err != nil {
		return err
	}
	hello := first.GetHello()
	who := ca.From(ctx)
	switch {
	case hello.GetNodeId() == "":
		return connect.NewError(connect.CodeInvalidArgument, errors.New("a session begins with a hello"))
	case !who.Verified || who.Role == ca.Operator || who.ID != hello.NodeId:
		return connect.NewError(connect.CodePermissionDenied, errors.New("the certificate is not that of this node"))
	}
	s, err := d.begin(ctx, hello)
	if err != nil {
		return err
	}
	defer d.finish(s)
	observed, _, _ := net.SplitHostPort(stream.Peer().Addr)
	err = stream.Send(&api.EngineMessage{Kind: &api.EngineMessage_Welcome{Welcome: &api.Welcome{
		ClusterId: d.Store.View().Cluster().GetId(), Heartbeat: durationpb.New(heartbeat), Observed: observed,
	}}})
	if err != nil {
		return err
	}
	received := make(chan error, 1)
	heard := make(chan struct{}, 1)
	go func() { // ends with the stream, which ends when this returns
		received <- d.receive(s, stream, heard)
	}()
	return d.send(ctx, s, stream, received, heard)
}

func (d *Dispatcher) begin(ctx context.Context, h *api.Hello) (*session, error) {
	d.mu.Lock()
	leading := d.leading
	d.mu.Unlock()
	if !leading {
		return nil, connect.NewError(connect.CodeUnavailable, errors.New("this engine does not lead"))
	}
	if err := d.enlist(ctx, h); err != nil {
		return nil, connect.NewError(connect.CodeUnavailable, err)
	}
	if err := d.reports.add(ctx, &api.ReportStatus{NodeId: h.NodeId, Statuses: h.Running}); err != nil {
		return nil, connect.NewError(connect.CodeUnavailable, err)
	}
	s := &session{node: h.NodeId, wake: make(chan struct{}, 1), closed: make(chan struct{}), moved: true, follows: h.Follows}
	s.poke()
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.leading {
		return nil, connect.NewError(connect.CodeUnavailable, errors.New("this engine does not lead"))
	}
	if old := d.sessions[h.NodeId]; old != nil {
		old.close()
	}
	d.sessions[h.NodeId], d.heard[h.NodeId] = s, time.Now()
	return s, nil
}

// enlist puts the node's row right: it is up, and this is what it is.
func (d *Dispatcher) enlist(ctx context.Context, h *api.Hello) error {
	if n := d.Store.View().Node(h.NodeId); n != nil && n.Status == "up" && proto.Equal(n.Facts, h.Facts) {
		return nil
	}
	_, err := d.Store.Propose(ctx, &api.Command{
		Time: timestamppb.Now(),
		Kind: &api.Command_SetNode{SetNode: &api.SetNode{Id: h.NodeId, Status: "up", Facts: h.Facts}},
	})
	return err
}

func (d *Dispatcher) finish(s *session) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s.close()
	if d.sessions[s.node] == s {
		delete(d.sessions, s.node)
	}
	d.tell()
}

func (d *Dispatcher) receive(s *session, stream *connect.BidiStream[api.AgentMessage, api.EngineMessage], heard chan<- struct{}) error {
	for {
		m, err := stream.Receive()
		if err != nil {
			return err
		}
		select {
		case heard <- struct{}{}:
		default:
		}
		d.mu.Lock()
		d.heard[s.node] = time.Now()
		d.mu.Unlock()
		switch k := m.Kind.(type) {
		case *api.AgentMessage_Report:
			k.Report.NodeId = s.node
			// The batch is applied in its own time; order is kept.
			d.reports.enqueue(k.Report)
		case *api.AgentMessage_Facts:
			d.reports.enqueueFacts(s.node, k.Facts)
		case *api.AgentMessage_Exec:
			d.commands.take(s.node, k.Exec.GetId(), k.Exec)
		case *api.AgentMessage_Answer:
			d.asks.take(s.node, k.Answer.GetId(), k.Answer)
		case *api.AgentMessage_Followed:
			d.follow(s, k.Followed)
		}
	}
}

// send writes to the stream, and ends the session when the agent falls
// silent.
func (d *Dispatcher) send(ctx context.Context, s *session, stream *connect.BidiStream[api.AgentMessage, api.EngineMessage], received <-chan error, heard <-chan struct{}) error {
	silence := time.NewTimer(downAfter)
	defer silence.Stop()
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	sent, shown := sentTasks{}, sentTable{}
	var said *api.Membership
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-received:
			return err
		case <-s.closed:
			return connect.NewError(connect.CodeUnavailable, errors.New("the session is over"))
		case <-heard:
			silence.Reset(downAfter)
		case <-silence.C:
			return connect.NewError(connect.CodeDeadlineExceeded, errors.New("no heartbeat"))
		case <-beat.C:
			if err := stream.Send(&api.EngineMessage{Kind: &api.EngineMessage_Heartbeat{Heartbeat: &api.Heartbeat{}}}); err != nil {
				return err
			}
		case <-s.wake:
			d.mu.Lock()
			queue, moved := s.queue, s.moved
			s.queue, s.moved = nil, false
			d.mu.Unlock()
			if moved {
				if m := d.membership(s.node); m != nil && !proto.Equal(m, said) {
					if err := stream.Send(&api.EngineMessage{Kind: &api.EngineMessage_Membership{Membership: m}}); err != nil {
						return err
					}
					said = m
				}
			}
			if m := sent.update(d.Store.View(), s.node, d.Open, d.Logger); m != nil {
				if err := stream.Send(&api.EngineMessage{Kind: &api.EngineMessage_Assignments{Assignments: m}}); err != nil {
					return err
				}
			}
			if s.follows {
				if m := d.endpoints(&shown); m != nil {
					if err := stream.Send(&api.EngineMessage{Kind: &api.EngineMessage_Endpoints{Endpoints: m}}); err != nil {
						return err
					}
				}
			}
			for _, m := range queue {
				if err := stream.Send(m); err != nil {
					return err
				}
			}
		}
	}
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

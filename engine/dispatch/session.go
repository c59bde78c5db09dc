package dispatch

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"orch/engine/api"
	"orch/engine/ca"
)

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

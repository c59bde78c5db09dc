package session_test

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/durationpb"

	"orch/agent/session"
	"orch/engine/api"
	"orch/engine/api/apiconnect"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// engine is the other end: each session is handed to the test.
type engine struct {
	apiconnect.UnimplementedAgentServiceHandler
	sessions chan *connect.BidiStream[api.AgentMessage, api.EngineMessage]
	end      chan error
	logs     chan *api.LogBatch
	rude     chan bool // end a session without a welcome
}

func (e *engine) Session(ctx context.Context, s *connect.BidiStream[api.AgentMessage, api.EngineMessage]) error {
	select {
	case <-e.rude:
		if _, err := s.Receive(); err != nil {
			return err
		}
		return s.Send(&api.EngineMessage{Kind: &api.EngineMessage_Assignments{Assignments: &api.Assignments{}}})
	case e.sessions <- s:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-e.end:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (e *engine) PublishLogs(_ context.Context, s *connect.ClientStream[api.LogBatch]) (*connect.Response[api.PublishLogsResponse], error) {
	for s.Receive() {
		e.logs <- s.Msg()
	}
	return connect.NewResponse(&api.PublishLogsResponse{}), s.Err()
}

// worker knows one task, always.
type worker struct {
	mu       sync.Mutex
	assigned []*api.Assignments
	pending  []*api.TaskStatus
	changed  chan struct{}
	logging  chan struct{}
	hanging  chan string   // the tasks of commands that hang
	free     chan struct{} // ends one of them
}

// stream is a session as an engine has it.
type stream = connect.BidiStream[api.AgentMessage, api.EngineMessage]

func (w *worker) Assign(m *api.Assignments) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.assigned = append(w.assigned, m)
}

func (w *worker) All() []*api.TaskStatus {
	return []*api.TaskStatus{{TaskId: "web.1#1", State: api.TaskState_TASK_STATE_RUNNING}}
}

func (w *worker) Statuses() []*api.TaskStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.pending
	w.pending = nil
	return p
}

func (w *worker) Changed() <-chan struct{} { return w.changed }

func (w *worker) Logs(ctx context.Context, ask *api.LogRequest, send func(*api.LogBatch) error) error {
	if !ask.Follow {
		return send(&api.LogBatch{Subscription: ask.Subscription, End: true})
	}
	close(w.logging)
	<-ctx.Done()
	return ctx.Err()
}

type rig struct {
	*testing.T
	e *engine
	w *worker
}

func begin(t *testing.T) *rig {
	r := &rig{t, &engine{apiconnect.UnimplementedAgentServiceHandler{}, make(chan *connect.BidiStream[api.AgentMessage, api.EngineMessage]), make(chan error), make(chan *api.LogBatch, 10), make(chan bool)},
		&worker{changed: make(chan struct{}, 1), logging: make(chan struct{}), hanging: make(chan string, 10), free: make(chan struct{})}}
	mux := http.NewServeMux()
	mux.Handle(apiconnect.NewAgentServiceHandler(r.e))
	server := httptest.NewUnstartedServer(mux)
	server.EnableHTTP2 = true
	server.StartTLS()
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- session.Run(ctx, session.Config{
			NodeID: "n1", Name: "one", Client: &http.Client{Transport: tr}, Engines: func() []string { return []string{server.Listener.Addr().String()} },
			Worker: r.w,
			Facts:  func(context.Context) *api.NodeFacts { return &api.NodeFacts{Hostname: "h"} },
			Logger: slog.New(slog.DiscardHandler),
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
		tr.CloseIdleConnections()
		server.CloseClientConnections()
		server.Close()
	})
	return r
}

// welcome takes the next session and its hello.
func (r *rig) welcome(beat time.Duration) *connect.BidiStream[api.AgentMessage, api.EngineMessage] {
	r.Helper()
	var s *connect.BidiStream[api.AgentMessage, api.EngineMessage]
	select {
	case s = <-r.e.sessions:
	case <-time.After(10 * time.Second):
		r.Fatal("no session")
	}
	h := r.receive(s).GetHello()
	if h.GetNodeId() != "n1" || h.Name != "one" || h.Facts.GetHostname() != "h" || len(h.Running) != 1 || h.Running[0].TaskId != "web.1#1" {
		r.Errorf("hello: %v", h)
	}
	r.send(s, &api.EngineMessage{Kind: &api.EngineMessage_Welcome{Welcome: &api.Welcome{Heartbeat: durationpb.New(beat)}}})
	return s
}

func (r *rig) send(s *connect.BidiStream[api.AgentMessage, api.EngineMessage], m *api.EngineMessage) {
	r.Helper()
	if err := s.Send(m); err != nil {
		r.Fatal(err)
	}
}

func (r *rig) receive(s *connect.BidiStream[api.AgentMessage, api.EngineMessage]) *api.AgentMessage {
	r.Helper()
	m, err := s.Receive()
	if err != nil {
		r.Fatal(err)
	}
	return m
}

func TestHeartbeats(t *testing.T) {
	r := begin(t)
	s := r.welcome(20 * time.Millisecond)
	began := time.Now()
	for range 10 {
		if r.receive(s).GetHeartbeat() == nil {
			t.Error("something else")
		}
	}
	if d := time.Since(began); d < 150*time.Millisecond {
		t.Errorf("10 heartbeats in %s", d)
	}
}

// Every new session begins with all that the agent knows.
func TestReconnects(t *testing.T) {
	r := begin(t)
	for range 3 {
		s := r.welcome(time.Hour)
		r.send(s, &api.EngineMessage{Kind: &api.EngineMessage_Assignments{Assignments: &api.Assignments{Full: true}}})
		r.e.end <- connect.NewError(connect.CodeUnavailable, errors.New("the session is over"))
	}
	r.welcome(time.Hour)
	r.w.mu.Lock()
	defer r.w.mu.Unlock()
	if len(r.w.assigned) != 3 {
		t.Errorf("%d assignments", len(r.w.assigned))
	}
}

// An engine that welcomes wrongly is left for another try.
func TestNoWelcome(t *testing.T) {
	r := begin(t)
	r.e.rude <- true
	r.welcome(time.Hour)
}

func TestReports(t *testing.T) {
	r := begin(t)
	s := r.welcome(time.Hour)
	r.w.changed <- struct{}{} // nothing new: nothing is sent
	r.w.mu.Lock()
	r.w.pending = []*api.TaskStatus{{TaskId: "a"}, {TaskId: "b"}}
	r.w.mu.Unlock()
	r.w.changed <- struct{}{}
	if got := r.receive(s).GetReport().GetStatuses(); len(got) != 2 {
		t.Errorf("got %v", got)
	}
}

func TestLogs(t *testing.T) {
	r := begin(t)
	s := r.welcome(20 * time.Millisecond)
	r.send(s, &api.EngineMessage{Kind: &api.EngineMessage_Logs{Logs: &api.LogRequest{Subscription: "once"}}})
	if b := <-r.e.logs; b.Subscription != "once" || !b.End {
		t.Errorf("got %v", b)
	}
	// A stream that is followed doesn't hold the session up, and ends when
	// nobody waits for it any more.
	r.send(s, &api.EngineMessage{Kind: &api.EngineMessage_Logs{Logs: &api.LogRequest{Subscription: "more", Follow: true}}})
	<-r.w.logging
	r.receive(s)
	r.send(s, &api.EngineMessage{Kind: &api.EngineMessage_LogCancel{LogCancel: &api.LogCancel{Subscription: "more"}}})
	r.receive(s)
}

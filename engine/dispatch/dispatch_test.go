package dispatch_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"orch/engine/api"
	"orch/engine/api/apiconnect"
	"orch/engine/ca"
	"orch/engine/dispatch"
	"orch/engine/seal"
	"orch/engine/state"
	"orch/engine/store"
)

// rig is a dispatcher behind a real TLS port, on a real store in memory.
type rig struct {
	*testing.T
	store     *store.Store
	gate      *gate
	authority *ca.Authority
	key       seal.Key
	d         *dispatch.Dispatcher
	server    *httptest.Server
}

// gate is the store as the dispatcher sees it: it counts reports, and can
// hold or refuse them.
type gate struct {
	*store.Store
	reports atomic.Int64
	held    atomic.Pointer[chan struct{}]
	refuse  atomic.Int64
}

func (g *gate) Propose(ctx context.Context, c *api.Command) (state.Result, error) {
	if c.GetReports() != nil {
		g.reports.Add(1)
		if held := g.held.Load(); held != nil {
			<-*held
		}
		if g.refuse.Add(-1) >= 0 {
			return state.Result{}, errors.New("no space left on device")
		}
	}
	return g.Store.Propose(ctx, c)
}

func newRig(t *testing.T) *rig {
	r := &rig{T: t}
	var err error
	r.store, err = store.Open(store.Config{NodeID: "e", Layer: store.NewLayer(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}, &tls.Config{})})
	r.check(err)
	r.check(r.store.Bootstrap())
	for !<-r.store.Leading() {
	}
	r.authority, err = ca.New()
	r.check(err)
	r.key = seal.Key{1, 2, 3}
	r.gate = &gate{Store: r.store}
	r.d = &dispatch.Dispatcher{
		Store: r.gate, Watch: func() dispatch.Watcher { return r.store.Watch() }, Open: r.key.Open, Logger: slog.New(slog.DiscardHandler),
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = r.d.Run(ctx) }()
	mux := http.NewServeMux()
	mux.Handle(apiconnect.NewAgentServiceHandler(r.d))
	w, err := r.authority.Wallet(ca.Subject{Role: ca.Engine, ID: "e"})
	r.check(err)
	r.server = httptest.NewUnstartedServer(w.Middleware(mux))
	r.server.EnableHTTP2 = true
	r.server.TLS = w.Server()
	r.server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	r.server.StartTLS()
	t.Cleanup(func() {
		cancel()
		<-done
		r.server.CloseClientConnections()
		r.server.Close()
		r.check(r.store.Close())
	})
	return r
}

func (r *rig) check(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func (r *rig) do(c *api.Command) {
	r.Helper()
	c.Time, c.Version = timestamppb.Now(), state.CommandSet
	_, err := r.store.Propose(r.Context(), c)
	r.check(err)
}

func (r *rig) client(w *ca.Wallet) apiconnect.AgentServiceClient {
	r.Helper()
	tr := &http.Transport{TLSClientConfig: w.Client(ca.ProtoHTTP), ForceAttemptHTTP2: true}
	r.Cleanup(tr.CloseIdleConnections)
	return apiconnect.NewAgentServiceClient(&http.Client{Transport: tr}, r.server.URL, connect.WithGRPC())
}

func (r *rig) as(role ca.Role, id string) apiconnect.AgentServiceClient {
	r.Helper()
	w, err := r.authority.Wallet(ca.Subject{Role: role, ID: id})
	r.check(err)
	return r.client(w)
}

// agent is a session as an agent has it.
type agent struct {
	*rig
	id     string
	client apiconnect.AgentServiceClient
	stream *connect.BidiStreamForClient[api.AgentMessage, api.EngineMessage]
	cancel context.CancelFunc
	beats  sync.WaitGroup
	got    chan *api.EngineMessage
}

func (r *rig) hello(id string, running ...*api.TaskStatus) *agent {
	r.Helper()
	return r.greet(&api.Hello{NodeId: id, Name: id, Running: running})
}

func (r *rig) greet(h *api.Hello) *agent {
	r.Helper()
	id := h.NodeId
	if r.store.View().Node(id) == nil {
		r.do(&api.Command{Kind: &api.Command_PutNode{PutNode: &api.Node{Id: id, Name: id, Role: "agent", Availability: "active", Status: "down"}}})
	}
	a := &agent{rig: r, id: id, client: r.as(ca.Agent, id), got: make(chan *api.EngineMessage, 100)}
	var ctx context.Context
	ctx, a.cancel = context.WithCancel(r.Context())
	a.stream = a.client.Session(ctx)
	a.send(&api.AgentMessage{Kind: &api.AgentMessage_Hello{Hello: h}})
	a.beats.Go(func() {
		for {
			m, err := a.stream.Receive()
			if err != nil {
				close(a.got)
				return
			}
			a.got <- m
		}
	})
	r.Cleanup(a.leave)
	if w := a.next().GetWelcome(); w.GetHeartbeat().AsDuration() != time.Second {
		r.Fatalf("not welcome: %v", w)
	}
	return a
}

func (a *agent) leave() {
	a.cancel()
	_ = a.stream.CloseRequest() // a context alone doesn't end it
	a.beats.Wait()
}

func (a *agent) send(m *api.AgentMessage) { a.Helper(); a.check(a.stream.Send(m)) }

func (a *agent) report(s ...*api.TaskStatus) {
	a.send(&api.AgentMessage{Kind: &api.AgentMessage_Report{Report: &api.ReportStatus{NodeId: "forged", Statuses: s}}})
}

func (a *agent) next() *api.EngineMessage {
	a.Helper()
	select {
	case m, ok := <-a.got:
		if !ok {
			a.Fatal("the session ended")
		}
		return m
	case <-time.After(10 * time.Second):
		a.Fatal("nothing came")
	}
	return nil
}

func (a *agent) assignments() *api.Assignments {
	a.Helper()
	for {
		switch k := a.next().Kind.(type) {
		case *api.EngineMessage_Assignments:
			return k.Assignments
		case *api.EngineMessage_Heartbeat:
		default:
			a.Fatalf("something else came: %v", k)
		}
	}
}

func (r *rig) eventually(what string, is func() bool) {
	r.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(10 * time.Second)
	for !is() {
		select {
		case <-tick.C:
		case <-deadline:
			r.Fatal("it never came to pass: " + what)
		}
	}
}

// deploy makes a release with one service of n slots and a secret.
func (r *rig) deploy(n int) {
	r.Helper()
	id := state.SecretID("web", "password")
	sealed, err := r.key.Seal(id, []byte("s3cret"))
	r.check(err)
	digest := r.key.Digest(id, []byte("s3cret"))
	task := &api.TaskSpec{Runtime: "process", Command: []string{"sleep"}, Secrets: []*api.FileRef{{Name: "password", Path: "/p", Mode: 0o400, Digest: digest}},
		Configs: []*api.FileRef{{Name: "conf", Path: "/c", Digest: "d1"}}, Networks: []string{"net"}, Mounts: []*api.Mount{{Type: "volume", Source: "vol", Target: "/v"}}}
	r.do(&api.Command{Kind: &api.Command_PutRelease{PutRelease: &api.PutRelease{
		Release: &api.Release{Stack: "web", BundleHash: "b", Spec: &api.StackSpec{
			Name: "web", Services: []*api.ServiceSpec{{Name: "app", Mode: "replicated", Replicas: int32(n), Task: task}},
			Configs: []*api.ConfigSpec{{Name: "conf", Content: []byte("x=1"), Digest: "d1"}}, Networks: []*api.NetworkSpec{{Name: "net"}},
			Volumes: []*api.VolumeSpec{{Name: "vol"}},
		}},
		Bundle: &api.Bundle{Hash: "b"}, Versions: map[string]string{"app": "v1"},
		Secrets: []*api.SecretValue{{Stack: "web", Name: "password", Sealed: sealed, Digest: digest}},
	}}})
}

// assign makes a task of slot i on node.
func (r *rig) assign(i int, node string) string {
	r.Helper()
	slot := fmt.Sprintf("web/app.%d", i)
	id := slot + "#1"
	r.do(&api.Command{Kind: &api.Command_Changes{Changes: &api.Changes{
		PutSlots: []*api.Slot{{Id: slot, ServiceId: "web/app", Key: fmt.Sprint(i), Version: "v1"}},
		Create: []*api.Task{{Id: id, ServiceId: "web/app", SlotId: slot, Attempt: 1, Version: "v1", Desired: api.TaskDesired_TASK_DESIRED_RUN,
			Status: &api.TaskStatus{TaskId: id, State: api.TaskState_TASK_STATE_PENDING}}},
		Change: []*api.TaskChange{{Id: id, NodeId: node}},
	}}})
	return id
}

func (r *rig) task(id string) *api.Task { return r.store.View().Task(id) }

func running(id string) *api.TaskStatus {
	return &api.TaskStatus{TaskId: id, State: api.TaskState_TASK_STATE_RUNNING, Ready: true}
}

// First comes all, then what changed; and a task comes with all it needs.
func TestFullThenDeltas(t *testing.T) {
	r := newRig(t)
	r.deploy(2)
	a := r.hello("n1")
	if m := a.assignments(); !m.Full || len(m.Tasks) != 0 {
		t.Fatalf("got %v", m)
	}
	one := r.assign(1, "n1")
	m := a.assignments()
	if m.Full || len(m.Tasks) != 1 {
		t.Fatalf("got %v", m)
	}
	as := m.Tasks[0]
	if as.TaskId != one || as.Desired != api.TaskDesired_TASK_DESIRED_RUN || as.Stack != "web" || as.Service != "app" || as.Slot != "web/app.1" ||
		as.Spec.GetRuntime() != "process" || len(as.Networks) != 1 || len(as.Volumes) != 1 {
		t.Errorf("got %v", as)
	}
	if len(as.Files) != 2 || string(as.Files[0].Content) != "x=1" || as.Files[0].Secret || string(as.Files[1].Content) != "s3cret" || !as.Files[1].Secret || as.Files[1].Mode != 0o400 {
		t.Errorf("got %v", as.Files)
	}
	r.assign(2, "other") // not this node's
	r.do(&api.Command{Kind: &api.Command_Changes{Changes: &api.Changes{Change: []*api.TaskChange{{Id: one, Desired: api.TaskDesired_TASK_DESIRED_STOP}}}}})
	m = a.assignments()
	if m.Full || len(m.Tasks) != 1 || m.Tasks[0].TaskId != one || m.Tasks[0].Desired != api.TaskDesired_TASK_DESIRED_STOP || m.Tasks[0].Spec != nil {
		t.Errorf("got %v", m)
	}
	r.do(&api.Command{Kind: &api.Command_Changes{Changes: &api.Changes{DeleteTasks: []string{one}}}})
	if m = a.assignments(); m.Full || len(m.Tasks) != 0 || len(m.Removed) != 1 || m.Removed[0] != one {
		t.Errorf("got %v", m)
	}
	a.leave()
	b := r.hello("other")
	if m = b.assignments(); !m.Full || len(m.Tasks) != 1 || m.Tasks[0].TaskId != "web/app.2#1" {
		t.Errorf("got %v", m)
	}
}

// Only an agent of this cluster, and only as the node that it is.
func TestStrangersAreRefused(t *testing.T) {
	r := newRig(t)
	try := func(c apiconnect.AgentServiceClient, h *api.AgentMessage) error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		s := c.Session(ctx)
		_ = s.Send(h) // the answer says why
		_, err := s.Receive()
		return err
	}
	hello := func(id string) *api.AgentMessage {
		return &api.AgentMessage{Kind: &api.AgentMessage_Hello{Hello: &api.Hello{NodeId: id, Name: id}}}
	}
	if err := try(r.as(ca.Agent, "n1"), hello("n2")); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("another node's id: %v", err)
	}
	if err := try(r.as(ca.Operator, "n1"), hello("n1")); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("an operator: %v", err)
	}
	if err := try(r.as(ca.Agent, "n1"), &api.AgentMessage{}); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("no hello: %v", err)
	}
	other, err := ca.New()
	r.check(err)
	foreign, err := other.Wallet(ca.Subject{Role: ca.Agent, ID: "n1"})
	r.check(err)
	creds := foreign.Credentials()
	creds.Roots = [][]byte{r.authority.Certificate()} // it trusts us; we don't trust it
	r.check(foreign.Set(creds))
	if err := try(r.client(foreign), hello("n1")); err == nil {
		t.Error("a certificate of another CA was let in")
	}
	if nodes := r.store.View().Nodes(); len(nodes) != 0 {
		t.Errorf("nodes: %v", nodes)
	}
}

func TestStatuses(t *testing.T) {
	r := newRig(t)
	r.deploy(2)
	one, two := r.assign(1, "n1"), r.assign(2, "n2")
	a := r.hello("n1", running(one), running(two))
	if s := r.task(one).Status; !s.Ready {
		t.Error("the hello's statuses are not there when the session begins")
	}
	if s := r.task(two).Status; s.State != api.TaskState_TASK_STATE_ASSIGNED {
		t.Errorf("it spoke for another node: %v", s)
	}
	a.report(running(two), &api.TaskStatus{TaskId: one, State: api.TaskState_TASK_STATE_FAILED, Message: "boom"}, running("web/app.9#1"))
	r.eventually("the report", func() bool { return r.task(one).Status.Message == "boom" })
	if s := r.task(two).Status; s.State != api.TaskState_TASK_STATE_ASSIGNED {
		t.Errorf("it spoke for another node: %v", s)
	}
	if n := r.store.View().Node("n1"); n.Status != "up" {
		t.Errorf("got %v", n)
	}
}

// While an entry is being committed, what comes is gathered for the next.
func TestReportsAreBatched(t *testing.T) {
	r := newRig(t)
	r.deploy(50)
	a := r.hello("n1")
	var ids []string
	for i := range 50 {
		ids = append(ids, r.assign(i, "n1"))
	}
	held := make(chan struct{})
	r.gate.held.Store(&held)
	before := r.gate.reports.Load()
	a.report(running(ids[0]))
	r.eventually("the first entry", func() bool { return r.gate.reports.Load() == before+1 })
	for _, id := range ids[1:] {
		a.report(running(id))
	}
	close(held)
	r.gate.held.Store(nil)
	r.eventually("all", func() bool {
		for _, id := range ids {
			if !r.task(id).Status.GetReady() {
				return false
			}
		}
		return true
	})
	if n := r.gate.reports.Load() - before; n == 50 {
		t.Errorf("50 reports took %d entries", n)
	}
}

// Reports that the store could not take are told again by themselves.
func TestRefusedReportsComeAgain(t *testing.T) {
	r := newRig(t)
	r.deploy(1)
	one := r.assign(1, "n1")
	a := r.hello("n1")
	r.gate.refuse.Store(2)
	a.report(running(one))
	r.eventually("the report", func() bool { return r.task(one).Status.GetReady() })
}

// A silent agent's node is down three seconds after its last word; when it is
// back, it is up at once.
func TestSilence(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	began := time.Now()
	a := r.hello("n1")
	a.assignments()
	r.eventually("down", func() bool { return r.store.View().Node("n1").Status == "down" })
	if d := time.Since(began); d < 2900*time.Millisecond || d > 4500*time.Millisecond {
		t.Errorf("it took %s", d)
	}
	for m := range a.got { // ends with the session
		if m.GetHeartbeat() == nil {
			t.Errorf("it got %v", m)
		}
	}
	r.hello("n1")
	if n := r.store.View().Node("n1"); n.Status != "up" || n.StatusReason != "" {
		t.Errorf("got %v", n)
	}
}

func TestHeartbeatsKeepANodeUp(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.hello("n1")
	a.assignments()
	index := r.store.View().Index()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for range 8 {
		a.send(&api.AgentMessage{Kind: &api.AgentMessage_Heartbeat{Heartbeat: &api.Heartbeat{}}})
		<-tick.C
	}
	if r.store.View().Node("n1").Status != "up" || r.store.View().Index() != index {
		t.Errorf("node %v, %d entries", r.store.View().Node("n1"), r.store.View().Index()-index)
	}
}

// The newer session of a node ends the older one.
func TestNewerSessionWins(t *testing.T) {
	r := newRig(t)
	a := r.hello("n1")
	a.assignments()
	b := r.hello("n1")
	b.assignments()
	if m, ok := <-a.got; ok {
		t.Errorf("the older one got %v", m)
	}
	r.deploy(1)
	r.assign(1, "n1")
	if m := b.assignments(); len(m.Tasks) != 1 {
		t.Errorf("got %v", m)
	}
}

// logs asks for the logs of tasks on nodes, and collects what comes.
func (r *rig) logs(ctx context.Context, nodes ...string) (wait func() (string, error)) {
	byNode := map[string][]string{}
	for _, n := range nodes {
		byNode[n] = []string{"t"}
	}
	var text strings.Builder
	done := make(chan error, 1)
	go func() {
		done <- r.d.Logs(ctx, byNode, &api.LogRequest{Tail: -1}, func(b *api.LogBatch) error {
			for _, l := range b.Lines {
				fmt.Fprintf(&text, "%s\n", l.Text)
			}
			if b.Error != "" {
				fmt.Fprintf(&text, "! %s\n", b.Error)
			}
			return nil
		})
	}()
	return func() (string, error) {
		select {
		case err := <-done:
			return text.String(), err
		case <-time.After(10 * time.Second):
			r.Fatal("the logs never ended")
			return "", nil
		}
	}
}

func (a *agent) publish(lines ...string) {
	a.Helper()
	ask := a.next().GetLogs()
	if ask == nil {
		a.Fatal("not asked for logs")
	}
	s := a.client.PublishLogs(a.Context())
	for _, l := range lines {
		a.check(s.Send(&api.LogBatch{Subscription: ask.Subscription, Lines: []*api.LogLine{{Text: []byte(l)}}}))
	}
	a.check(s.Send(&api.LogBatch{Subscription: ask.Subscription, End: true}))
	_, err := s.CloseAndReceive()
	a.check(err)
	if c := a.next().GetLogCancel(); c.GetSubscription() != ask.Subscription {
		a.Errorf("the subscription was not cancelled: %v", c)
	}
}

func TestLogs(t *testing.T) {
	r := newRig(t)
	a := r.hello("n1")
	a.assignments()
	wait := r.logs(t.Context(), "n1", "away")
	a.publish("one", "two")
	text, err := wait()
	r.check(err)
	if !strings.Contains(text, "one\ntwo\n") || !strings.Contains(text, "! node away isn't connected: the logs of 1 of its tasks are missing\n") {
		t.Errorf("got %q", text)
	}
}

// A node that goes before it has said a word must not be waited for.
func TestLogsEndWhenANodeGoes(t *testing.T) {
	r := newRig(t)
	a := r.hello("n1")
	a.assignments()
	wait := r.logs(t.Context(), "n1")
	if a.next().GetLogs() == nil {
		t.Fatal("not asked")
	}
	a.leave()
	text, err := wait()
	r.check(err)
	if text != "! node n1 went away: there may be more in its logs\n" {
		t.Errorf("got %q", text)
	}
}

func TestLogsEndWithTheirContext(t *testing.T) {
	r := newRig(t)
	a := r.hello("n1")
	a.assignments()
	ctx, cancel := context.WithCancel(t.Context())
	wait := r.logs(ctx, "n1")
	ask := a.next().GetLogs()
	cancel()
	if _, err := wait(); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if c := a.next().GetLogCancel(); c.GetSubscription() != ask.GetSubscription() {
		t.Errorf("got %v", c)
	}
	s := a.client.PublishLogs(t.Context())
	_ = s.Send(&api.LogBatch{Subscription: ask.Subscription, End: true})
	if _, err := s.CloseAndReceive(); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("lines that nobody waits for: %v", err)
	}
}

// A node that is marked down while its new session begins comes up again by
// itself: nobody else would say so.
func TestMarkedDownUnderASession(t *testing.T) {
	r := newRig(t)
	a := r.hello("n1")
	a.assignments()
	r.do(&api.Command{Kind: &api.Command_SetNode{SetNode: &api.SetNode{Id: "n1", Status: "down", StatusReason: "late"}}})
	r.eventually("up", func() bool { return r.store.View().Node("n1").Status == "up" })
}

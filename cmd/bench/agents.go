package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"time"

	"connectrpc.com/connect"

	"orch/agent/session"
	"orch/engine"
	"orch/engine/api"
	"orch/engine/api/apiconnect"
	"orch/engine/ca"
	"orch/engine/folder"
	"orch/engine/operator"
	"orch/engine/rollout"
)

const (
	simulated = 1000
	replicas  = 10_000
)

// scale runs one engine, on disk and behind its TLS port, with a thousand
// agents that speak the real protocol and whose tasks run at once.
func (b *bench) scale(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	e, done, err := founded(ctx, filepath.Join(b.dir, "scale"), fixed{}, nil)
	if err != nil {
		cancel()
		return err
	}
	defer done()
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	work.Go(func() { _ = e.Run(ctx) })
	<-e.Ready()
	client, closed := operatorOf(e)
	defer closed()
	for i := range simulated {
		if err := simulate(ctx, e, client, i, &work); err != nil {
			return err
		}
	}
	for {
		nodes, err := client.ListNodes(ctx, connect.NewRequest(&api.ListNodesRequest{}))
		if err != nil {
			return err
		}
		up := 0
		for _, n := range nodes.Msg.Nodes {
			if n.Status == "up" {
				up++
			}
		}
		if up == simulated {
			break
		}
		pause(ctx)
	}
	before, size := b.applied(ctx, client)
	took, err := timed(func() error { return deploy(ctx, client) })
	if err != nil {
		return err
	}
	after, grown := b.applied(ctx, client)
	b.rows = append(b.rows, row{
		what: fmt.Sprintf("%d replicas on %d agents, all running", replicas, simulated), got: took, peer: 2 * time.Second, than: "limit", goal: "1",
		note: fmt.Sprintf("%.0f tasks/s, %d log entries, %d bytes of log a task", replicas/took.Seconds(), after-before, (grown-size)/replicas),
	})
	return nil
}

// founded is an engine of a new cluster.
func founded(ctx context.Context, dir string, evaluator operator.Evaluator, strategy rollout.Strategy) (e *engine.Engine, done func(), err error) {
	f, err := folder.Open(dir)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	if err := engine.Found(f, "bench", "bench", ""); err != nil {
		return nil, nil, err
	}
	w, err := ca.NewWallet(f.Credentials())
	if err != nil {
		return nil, nil, err
	}
	e, err = engine.Open(ctx, engine.Config{Folder: f, Wallet: w, Evaluator: evaluator, Strategy: strategy, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, nil, err
	}
	return e, func() {
		e.Close()
		f.Close()
	}, nil
}

func pause(ctx context.Context) { wait(ctx, 20*time.Millisecond) }

// brief is a pause for what takes a few milliseconds.
func brief(ctx context.Context) { wait(ctx, 2*time.Millisecond) }

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

func (b *bench) applied(ctx context.Context, client apiconnect.ClusterServiceClient) (index, bytes uint64) {
	if r, err := client.Info(ctx, connect.NewRequest(&api.InfoRequest{})); err == nil {
		index = r.Msg.AppliedIndex
	}
	if info, err := os.Stat(filepath.Join(b.dir, "scale", "raft.db")); err == nil {
		bytes = uint64(info.Size())
	}
	return index, bytes
}

func deploy(ctx context.Context, client apiconnect.ClusterServiceClient) error {
	if _, err := client.Apply(ctx, connect.NewRequest(&api.ApplyRequest{Bundle: &api.Bundle{Root: "x.star", Hash: "x"}})); err != nil {
		return err
	}
	for ctx.Err() == nil {
		r, err := client.ListStacks(ctx, connect.NewRequest(&api.ListStacksRequest{}))
		if err != nil {
			return err
		}
		if len(r.Msg.Stacks) == 1 && r.Msg.Stacks[0].Converged {
			return nil
		}
		pause(ctx)
	}
	return ctx.Err()
}

// fixed is an Evaluator that has its answer: Starlark is measured elsewhere.
type fixed struct{}

func (fixed) Evaluate(context.Context, *api.Bundle, string) (*api.StackSpec, []string, error) {
	return &api.StackSpec{Name: "scale", Services: []*api.ServiceSpec{{
		Name: "web", Mode: "replicated", Replicas: replicas, Task: &api.TaskSpec{Runtime: "process", Command: []string{"true"}},
	}}}, nil, nil
}

// operatorOf asks an engine as its own host may.
func operatorOf(e *engine.Engine) (apiconnect.ClusterServiceClient, func()) {
	server := httptest.NewServer(e.Local("bench"))
	return apiconnect.NewClusterServiceClient(server.Client(), server.URL), server.Close
}

// simulate joins an agent whose worker only says that its tasks run.
func simulate(ctx context.Context, e *engine.Engine, client apiconnect.ClusterServiceClient, i int, work *sync.WaitGroup) error {
	id := fmt.Sprintf("node-%04d", i)
	key, err := ca.NewKey()
	if err != nil {
		return err
	}
	csr, err := ca.Request(key)
	if err != nil {
		return err
	}
	r, err := client.Admit(ctx, connect.NewRequest(&api.AdmitRequest{Csr: csr, NodeId: id, Name: id, Role: string(ca.Agent)}))
	if err != nil {
		return err
	}
	m := r.Msg
	w, err := ca.NewWallet(ca.Credentials{Key: key, Certificate: m.Certificate, Roots: m.Roots})
	if err != nil {
		return err
	}
	h := &http.Client{Transport: &http.Transport{TLSClientConfig: w.Client(ca.ProtoHTTP), ForceAttemptHTTP2: true}}
	work.Go(func() {
		_ = session.Run(ctx, session.Config{
			NodeID: id, Name: id, Client: h, Engines: func() []string { return []string{e.Address()} }, Worker: &worker{changed: make(chan struct{}, 1)}, Logger: slog.New(slog.DiscardHandler),
			Facts: func(context.Context) *api.NodeFacts {
				return &api.NodeFacts{Hostname: id, CpusMilli: 64_000, Memory: 64 << 30, Runtimes: []*api.RuntimeFacts{{Name: "process"}}}
			},
		})
	})
	return nil
}

// worker is an agent's without runtimes.
type worker struct {
	mu      sync.Mutex
	pending []*api.TaskStatus
	changed chan struct{}
}

func (w *worker) Assign(m *api.Assignments) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, as := range m.Tasks {
		s := &api.TaskStatus{TaskId: as.TaskId, State: api.TaskState_TASK_STATE_RUNNING, Ready: true}
		if as.Desired == api.TaskDesired_TASK_DESIRED_STOP {
			s.State, s.Ready = api.TaskState_TASK_STATE_STOPPED, false
		}
		w.pending = append(w.pending, s)
	}
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

func (w *worker) Statuses() []*api.TaskStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.pending
	w.pending = nil
	return all
}

func (w *worker) All() []*api.TaskStatus   { return w.Statuses() }
func (w *worker) Changed() <-chan struct{} { return w.changed }

func (w *worker) Exec(context.Context, string, []string) (int, string, error) {
	return -1, "", errors.New("nothing runs here")
}

func (w *worker) Logs(context.Context, *api.LogRequest, func(*api.LogBatch) error) error { return nil }

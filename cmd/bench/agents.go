package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
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
)

const (
	simulated = 1000
	replicas  = 10_000
)

// scale runs one engine, on disk and behind its TLS port, with a thousand
// agents that speak the real protocol and whose tasks run at once.
func (b *bench) scale(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	e, err := engine.Open(engine.Config{Dir: filepath.Join(b.dir, "scale"), Evaluator: fixed{}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		cancel()
		return err
	}
	defer e.Close()
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	work.Go(func() { _ = e.Run(ctx) })
	<-e.Ready()
	for i := range simulated {
		if err := simulate(ctx, e, i, &work); err != nil {
			return err
		}
	}
	client, err := operatorOf(e)
	if err != nil {
		return err
	}
	for {
		nodes, err := client.ListNodes(ctx, connect.NewRequest(&api.ListNodesRequest{}))
		if err != nil {
			return err
		}
		if len(nodes.Msg.Nodes) == simulated {
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

func pause(ctx context.Context) {
	t := time.NewTimer(20 * time.Millisecond)
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

func clientOf(e *engine.Engine, role ca.Role, id string) (*http.Client, error) {
	creds, err := e.Issue(role, id)
	if err != nil {
		return nil, err
	}
	config, err := creds.ClientTLS(ca.ProtoHTTP)
	return &http.Client{Transport: &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}}, err
}

func operatorOf(e *engine.Engine) (apiconnect.ClusterServiceClient, error) {
	h, err := clientOf(e, ca.Operator, "bench")
	return apiconnect.NewClusterServiceClient(h, "https://"+e.Address(), connect.WithGRPC()), err
}

// simulate starts an agent whose worker only says that its tasks run.
func simulate(ctx context.Context, e *engine.Engine, i int, work *sync.WaitGroup) error {
	id := fmt.Sprintf("node-%04d", i)
	h, err := clientOf(e, ca.Agent, id)
	if err != nil {
		return err
	}
	work.Go(func() {
		_ = session.Run(ctx, session.Config{
			NodeID: id, Name: id, Client: h, URL: "https://" + e.Address(), Worker: &worker{changed: make(chan struct{}, 1)}, Logger: slog.New(slog.DiscardHandler),
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

func (w *worker) Logs(context.Context, *api.LogRequest, func(*api.LogBatch) error) error { return nil }

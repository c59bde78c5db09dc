// Package agent puts an agent together: runtimes, worker, published ports and
// the session with the engine. It decides nothing itself.
package agent

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"orch/agent/docker"
	"orch/agent/health"
	"orch/agent/network"
	"orch/agent/process"
	"orch/agent/session"
	"orch/agent/worker"
	"orch/engine/api"
)

// Config of an agent.
type Config struct {
	NodeID  string
	Name    string // of the node; "": the host's
	Cluster string // id
	Dir     string // data folder
	Engine  string // host:port
	TLS     *tls.Config
	Version string
	Logger  *slog.Logger
}

// Agent runs a node's tasks.
type Agent struct {
	cfg    Config
	worker *worker.Worker
	ports  *network.Publisher
}

// New makes an agent; Run makes it work.
func New(cfg Config) (*Agent, error) {
	if cfg.Name == "" {
		cfg.Name, _ = os.Hostname()
	}
	d, err := docker.New(docker.Config{Cluster: cfg.Cluster, Node: cfg.Name, Logger: cfg.Logger})
	if err != nil {
		return nil, err
	}
	p, err := process.New(process.Config{Cluster: cfg.Cluster, Dir: filepath.Join(cfg.Dir, "process"), Logger: cfg.Logger})
	if err != nil {
		return nil, err
	}
	a := &Agent{cfg: cfg, ports: &network.Publisher{Logger: cfg.Logger}}
	a.worker = worker.New(worker.Config{
		Cluster: cfg.Cluster, Runtimes: []worker.Runtime{d, p}, Checks: checks, Publisher: publisher{a.ports}, Logger: cfg.Logger,
	})
	return a, nil
}

// Run works until ctx ends. Tasks go on running.
func (a *Agent) Run(ctx context.Context) error {
	var work sync.WaitGroup
	defer work.Wait()
	work.Go(func() { a.ports.Run(ctx) })
	work.Go(func() { a.worker.Run(ctx) })
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: a.cfg.TLS, ForceAttemptHTTP2: true,
		// An engine whose host died says no goodbye.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 5 * time.Second, PingTimeout: 5 * time.Second},
	}}
	return session.Run(ctx, session.Config{
		NodeID: a.cfg.NodeID, Name: a.cfg.Name, Client: client, URL: "https://" + a.cfg.Engine, Worker: a.worker,
		Facts: a.facts, Logger: a.cfg.Logger,
	})
}

// Bare says that nothing is left of any task here.
func (a *Agent) Bare() bool { return a.worker.Bare() }

func (a *Agent) facts(ctx context.Context) *api.NodeFacts {
	host, _ := os.Hostname()
	f := &api.NodeFacts{
		Hostname: host, Os: runtime.GOOS, Arch: runtime.GOARCH, CpusMilli: int64(runtime.NumCPU()) * 1000, Version: a.cfg.Version,
		Runtimes: a.worker.Facts(ctx), Address: "127.0.0.1",
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		f.Memory = int64(info.Totalram) * int64(info.Unit)
	}
	return f
}

// checks runs agent/health's checks for the worker.
func checks(ctx context.Context, c *api.HealthCheck, address string, exec func(context.Context, []string) (int, string, error), report func(worker.Health)) {
	target := health.Target{Address: address, Exec: exec}
	_ = health.Run(ctx, c, func(ctx context.Context) error { return health.Probe(ctx, c, target) }, func(r health.Result) {
		report(worker.Health{Healthy: r.Healthy, GivenUp: health.Unhealthy(c, r), Reason: r.Error})
	}) // it ends with ctx and nothing else
}

// publisher listens where routes say.
type publisher struct{ to *network.Publisher }

func (p publisher) Publish(routes []worker.Route) {
	out := make([]network.Route, len(routes))
	for i, r := range routes {
		out[i] = network.Route{Address: net.JoinHostPort(r.HostIP, strconv.Itoa(int(r.Port))), Targets: r.Targets}
	}
	p.to.Publish(out)
}

// Package agent puts an agent together: runtimes, worker, published ports and
// the session with the engine. It decides nothing itself.
package agent

import (
	"context"
	"crypto/tls"
	"errors"
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

	"orch/agent/carrier"
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
	Name    string          // of the node
	Cluster string          // id
	Dir     string          // data folder
	Address string          // where other hosts reach this one, without a port
	Engines func() []string // host:port of those that are known
	TLS     *tls.Config
	Peers   *Peers // nil: other nodes don't reach the tasks here
	Version string
	// Trust, if set, adds to the facts what the node knows of the CA, and
	// Trusts has a value when that changed.
	Trust  func(*api.NodeFacts)
	Trusts <-chan struct{}
	// Membership and Refused are told what the cluster says of this node, see
	// session.Config.
	Membership func(*api.Membership)
	Refused    func(reason string)
	Logger     *slog.Logger
}

// Peers is how nodes reach each other's tasks.
type Peers struct {
	Port int // to listen on; taken: any
	// Admission is what this node shows now, and whom it trusts; its port is
	// set here.
	Admission func() *api.Admission
}

// Agent runs a node's tasks.
type Agent struct {
	cfg      Config
	worker   *worker.Worker
	carrier  *carrier.Carrier
	plane    *network.Plane
	networks *plane // nil: networks are this host's alone, and none says why
	none     error

	mu       sync.Mutex
	runtimes []*api.RuntimeFacts // as they were when last asked
	behind   string              // see api.PlaneFacts
	changed  chan struct{}       // the facts have
}

// New makes an agent; Run makes it work.
func New(cfg Config) (*Agent, error) {
	own := docker.Config{Cluster: cfg.Cluster, Node: cfg.Name, Logger: cfg.Logger}
	networks, none := openPlane(cfg)
	if none == nil {
		own.Plane = networks
	}
	d, err := docker.New(own)
	if err != nil {
		return nil, err
	}
	p, err := process.New(process.Config{Cluster: cfg.Cluster, Dir: filepath.Join(cfg.Dir, "process"), Logger: cfg.Logger})
	if err != nil {
		return nil, err
	}
	a := &Agent{cfg: cfg, changed: make(chan struct{}, 1), networks: networks, none: none}
	a.carrier = &carrier.Carrier{Dir: filepath.Join(cfg.Dir, "carrier"), Ended: func() { a.plane.Ended() }, Changed: a.tell, Logger: cfg.Logger}
	a.plane = &network.Plane{Node: cfg.NodeID, Carrier: a.carrier, PortsFile: filepath.Join(cfg.Dir, "inside.json"), Logger: cfg.Logger}
	if networks != nil {
		networks.into(a.plane)
	}
	if p := cfg.Peers; p != nil {
		a.carrier.Admission = func() *api.Admission {
			shown := p.Admission()
			shown.Port = uint32(p.Port)
			return shown
		}
	}
	a.worker = worker.New(worker.Config{
		Cluster: cfg.Cluster, Runtimes: []worker.Runtime{d, p}, Checks: checks, Local: a.local, Inside: a.plane.Inside, Logger: cfg.Logger,
	})
	return a, nil
}

// Run works until ctx ends. Tasks go on running.
func (a *Agent) Run(ctx context.Context) error {
	var work sync.WaitGroup
	defer a.lastCarried()
	defer work.Wait()
	carries := make(chan struct{})
	work.Go(func() { a.carrier.Run(ctx, carries) })
	<-carries
	work.Go(func() { a.plane.Run(ctx) })
	if a.networks != nil {
		a.networks.run(ctx, &work)
	}
	work.Go(func() { a.keepWays(ctx) })
	work.Go(func() { a.worker.Run(ctx) })
	known := make(chan struct{})
	work.Go(func() { a.watch(ctx, known) })
	first := time.NewTimer(askWithin)
	defer first.Stop()
	select {
	case <-known:
	case <-first.C: // a runtime hangs: the rest of the host doesn't wait for it
	case <-ctx.Done():
	}
	transport := &http.Transport{
		TLSClientConfig: a.cfg.TLS, ForceAttemptHTTP2: true, DialContext: (&net.Dialer{Timeout: dialWithin}).DialContext,
		// An engine whose host died says no goodbye.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 2 * time.Second, PingTimeout: 2 * time.Second},
	}
	defer transport.CloseIdleConnections()
	return session.Run(ctx, session.Config{
		NodeID: a.cfg.NodeID, Name: a.cfg.Name, Client: &http.Client{Transport: transport}, Engines: a.cfg.Engines, Worker: a.worker, Network: a.plane, Answer: a.answer,
		Facts: a.facts, FactsChanged: a.changed, Observed: a.observed, Membership: a.cfg.Membership, Refused: a.cfg.Refused, Logger: a.cfg.Logger,
	})
}

const (
	// askEvery often the runtimes are asked whether they can be used.
	askEvery = 10 * time.Second
	// askWithin they answer, if all is well.
	askWithin = time.Second
)

// watch asks the runtimes, apart from all else: one that hangs must not keep
// the agent from its heartbeats. known closes once they have answered.
func (a *Agent) watch(ctx context.Context, known chan struct{}) {
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for {
		now := a.worker.Facts(ctx)
		a.mu.Lock()
		a.runtimes = now
		a.mu.Unlock()
		a.tell()
		if known != nil {
			close(known)
			known = nil
		}
		for again := false; !again; {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				a.networks.renew(a.cfg.Logger)
				again = true
			case <-a.cfg.Trusts:
				a.carrier.Admit()
				a.tell()
			}
		}
	}
}

// tell has the session look at the facts.
func (a *Agent) tell() {
	select {
	case a.changed <- struct{}{}:
	default:
	}
}

// dialWithin an engine that lives takes a connection.
const dialWithin = time.Second

// Bare says that nothing is left of any task here.
func (a *Agent) Bare() bool { return a.worker.Bare() }

// Evict stops all tasks, whoever wants them, and takes away what they leave.
func (a *Agent) Evict() { a.worker.Assign(&api.Assignments{Full: true}) }

// endWithin a carrier has ended.
const endWithin = 5 * time.Second

// Dismantle takes away what published ports and networks across hosts needed
// here. To be called after Run has ended.
func (a *Agent) Dismantle() error {
	ctx, cancel := context.WithTimeout(context.Background(), endWithin)
	defer cancel()
	err := a.carrier.End(ctx)
	if a.networks != nil {
		err = errors.Join(err, a.networks.remove())
	}
	return err
}

// lastCarried ends the carrier of a host that is alone and has no tasks left.
func (a *Agent) lastCarried() {
	if a.cfg.Peers != nil || !a.plane.Known() || !a.Bare() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), endWithin)
	defer cancel()
	if err := a.carrier.End(ctx); err != nil {
		a.cfg.Logger.Warn("the process of the published ports goes on", "error", err)
	}
}

func (a *Agent) facts(context.Context) *api.NodeFacts {
	host, _ := os.Hostname()
	a.mu.Lock()
	defer a.mu.Unlock()
	f := &api.NodeFacts{
		Hostname: host, Os: runtime.GOOS, Arch: runtime.GOARCH, CpusMilli: int64(runtime.NumCPU()) * 1000, Version: a.cfg.Version,
		Runtimes: a.runtimes, Address: a.cfg.Address,
	}
	if port := a.carrier.RelayPort(); port > 0 {
		f.Relay = net.JoinHostPort(a.cfg.Address, strconv.FormatUint(uint64(port), 10))
	}
	if a.networks != nil {
		f.Plane = a.networks.facts(a.cfg.Address, a.plane.Subnets(), a.cfg.Logger)
	} else {
		f.Plane = &api.PlaneFacts{Error: a.none.Error()}
	}
	f.Plane.Behind = a.behind
	f.Plane.Closed = a.carrier.ClosedPorts()
	if a.cfg.Trust != nil {
		a.cfg.Trust(f)
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

// local tells the data plane how this node's own tasks are: it needs no engine
// to stop sending to one that isn't ready.
func (a *Agent) local(here map[string]worker.Here) {
	all := make(map[string]network.Local, len(here))
	for id, h := range here {
		all[id] = network.Local(h)
	}
	a.plane.Local(all)
}

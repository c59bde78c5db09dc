// Package daemon is what a host is in its cluster: always an agent, and an
// engine as long as the cluster says so. It keeps the host's certificate
// fresh, follows what the cluster says of its role, and answers on a socket
// in the data folder.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"connectrpc.com/connect"

	"orch/agent"
	"orch/cmd/internal/socket"
	"orch/engine"
	"orch/engine/api"
	"orch/engine/api/apiconnect"
	"orch/engine/ca"
	"orch/engine/folder"
	"orch/engine/operator"
	"orch/engine/rollout"
)

// Config of a daemon.
type Config struct {
	Dir       string // data folder
	NoAgent   bool   // it runs no tasks
	Version   string // of orch
	Evaluator operator.Evaluator
	Strategy  Strategy
	Logger    *slog.Logger
}

// Strategy asks strategies, of which it may keep some at hand until Close.
type Strategy interface {
	rollout.Strategy
	Close() error
}

// Daemon is a host's. All methods are safe for concurrent use.
type Daemon struct {
	cfg    Config
	folder *folder.Folder
	log    *slog.Logger
	socket net.Listener
	server *http.Server
	wallet *ca.Wallet

	unlocked chan struct{} // closed once the keys are open
	renew    chan struct{} // the certificate should be replaced now
	trusts   chan struct{} // the agent should tell what it trusts
	ready    chan struct{} // closed once the first engine, or the agent, is at work
	once     sync.Once
	end      context.CancelCauseFunc

	mu     sync.Mutex
	role   chan struct{} // closed and replaced when the role changes
	state  string        // see api.HostStatus
	reason string
	engine *engine.Engine
	agent  *agent.Agent
}

// Open takes the data folder and listens on its socket. Run must follow, and
// Close.
func Open(cfg Config) (*Daemon, error) {
	f, err := folder.Open(cfg.Dir)
	if err != nil {
		return nil, err
	}
	d := &Daemon{
		cfg: cfg, folder: f, log: cfg.Logger, state: "starting",
		unlocked: make(chan struct{}), renew: make(chan struct{}, 1), trusts: make(chan struct{}, 1), ready: make(chan struct{}), role: make(chan struct{}),
		end: func(error) {},
	}
	if _, err := f.Keys(); err == nil {
		close(d.unlocked)
	} else {
		d.state, d.reason = "locked", err.Error()
	}
	if d.socket, err = socket.Listen(cfg.Dir); err != nil {
		f.Close()
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle(apiconnect.NewHostServiceHandler(host{d}))
	mux.HandleFunc("/", d.serveCluster)
	d.server = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, Protocols: new(http.Protocols)}
	d.server.Protocols.SetHTTP1(true) // curl
	d.server.Protocols.SetUnencryptedHTTP2(true)
	go func() { _ = d.server.Serve(d.socket) }() // ends with Close
	return d, nil
}

// Folder is the data folder that the daemon has.
func (d *Daemon) Folder() *folder.Folder { return d.folder }

// Ready closes once requests are answered.
func (d *Daemon) Ready() <-chan struct{} { return d.ready }

// Bare says that nothing is left of any task here.
func (d *Daemon) Bare() bool {
	d.mu.Lock()
	a := d.agent
	d.mu.Unlock()
	return a != nil && a.Bare()
}

// Close gives the folder free; after Run has returned.
func (d *Daemon) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if d.server.Shutdown(ctx) != nil { // whoever follows logs doesn't end by itself
		d.server.Close()
	}
	if err := d.cfg.Strategy.Close(); err != nil {
		d.log.Warn("the strategies' child didn't end well", "error", err)
	}
	d.folder.Close()
}

// serveCluster is the cluster's API on the socket.
func (d *Daemon) serveCluster(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	e, state, reason := d.engine, d.state, d.reason
	d.mu.Unlock()
	if e != nil {
		e.Local("root@"+d.folder.Membership().GetName()).ServeHTTP(w, r)
		return
	}
	err := connect.NewError(connect.CodeUnavailable, errors.New("the engine is starting"))
	m := d.folder.Membership()
	switch {
	case state == "locked":
		err = connect.NewError(connect.CodeFailedPrecondition, folder.ErrLocked)
	case reason != "":
		err = connect.NewError(connect.CodeUnavailable, errors.New(reason))
	case m != nil && m.Role != string(ca.Engine):
		err = connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("this host is a worker of cluster %q: ask one of its engines (%s), or use a context", m.ClusterName, Names(m.Engines)))
	}
	_ = connect.NewErrorWriter().Write(w, r, err) // a client that is gone needs no answer
}

// Names are engines as a sentence has them.
func Names(peers []*api.Peer) string {
	text := ""
	for i, p := range peers {
		if i > 0 {
			text += ", "
		}
		text += p.Name + " at " + p.Address
	}
	return text
}

func (d *Daemon) set(state, reason string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.state != "leaving" {
		d.state, d.reason = state, reason
	}
}

// Run works until ctx ends, or until the host has left its cluster.
func (d *Daemon) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	d.mu.Lock()
	d.end = cancel
	d.mu.Unlock()
	select {
	case <-d.unlocked:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if d.folder.Membership() == nil {
		return errors.New("this host is in no cluster yet: `orch cluster init` makes one, `orch join` joins one")
	}
	wallet, err := ca.NewWallet(d.folder.Credentials())
	if err != nil {
		return fmt.Errorf("cannot use this host's certificate: %w", err)
	}
	d.mu.Lock() // requests come over the socket already
	d.wallet = wallet
	d.mu.Unlock()
	var work sync.WaitGroup
	defer work.Wait()
	part := func(run func(context.Context) error) {
		work.Go(func() {
			if err := run(ctx); err != nil && ctx.Err() == nil {
				cancel(err)
			}
		})
	}
	part(d.keepCertificate)
	part(d.keepEngine)
	if !d.cfg.NoAgent {
		part(d.keepAgent)
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

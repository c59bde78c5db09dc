// Package engine puts an engine together: the replicated state, the leader's
// loop, the sessions of agents and the operators' API, behind one TLS port.
// It decides nothing itself. See DESIGN.md beside this file.
package engine

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"orch/engine/api"
	"orch/engine/api/apiconnect"
	"orch/engine/ca"
	"orch/engine/control"
	"orch/engine/dispatch"
	"orch/engine/operator"
	"orch/engine/seal"
	"orch/engine/state"
	"orch/engine/store"
)

// Config of an engine.
type Config struct {
	Dir       string // data folder; made if it isn't there
	Listen    string // host:port; "": 127.0.0.1 and a free port
	Name      string // of the cluster, when it is made; "": "orch"
	Evaluator operator.Evaluator
	Version   string
	Logger    *slog.Logger
}

// Engine is one voter.
type Engine struct {
	cfg        Config
	id         string
	unlock     func()
	authority  *ca.Authority
	key        seal.Key
	listener   net.Listener
	layer      *store.Layer
	store      *store.Store
	server     *http.Server
	dispatcher *dispatch.Dispatcher
	history    *operator.Ring
	ready      chan struct{}
	readyOnce  sync.Once
}

// Open takes the data folder, and makes a cluster of one in it if it is
// empty. Run makes the engine work; Close must follow.
func Open(cfg Config) (e *Engine, err error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the data folder: %w", err)
	}
	e = &Engine{cfg: cfg, history: operator.NewRing(), ready: make(chan struct{})}
	if e.unlock, err = Lock(cfg.Dir); err != nil {
		return nil, err
	}
	opened := e // what returns nil, err sets e
	defer func() {
		if err != nil {
			opened.Close()
			e = nil
		}
	}()
	if e.id, err = identity(filepath.Join(cfg.Dir, "node-id")); err != nil {
		return nil, err
	}
	if e.authority, err = ca.Open(cfg.Dir); err != nil {
		return nil, err
	}
	if e.key, err = seal.OpenKey(filepath.Join(cfg.Dir, "data.key")); err != nil {
		return nil, err
	}
	return e, e.open()
}

func (e *Engine) open() error {
	creds, err := e.authority.Issue(ca.Engine, e.id)
	if err != nil {
		return err
	}
	address := e.cfg.Listen
	if address == "" {
		address = "127.0.0.1:0"
	}
	if e.listener, err = net.Listen("tcp", address); err != nil {
		return fmt.Errorf("cannot listen: %w", err)
	}
	dial, err := creds.ClientTLS(ca.ProtoRaft)
	if err != nil {
		return err
	}
	e.layer = store.NewLayer(e.listener.Addr(), dial)
	e.store, err = store.Open(store.Config{Dir: e.cfg.Dir, NodeID: e.id, Layer: e.layer, Logger: e.cfg.Logger})
	if err != nil {
		return err
	}
	if err := e.store.Bootstrap(); err != nil {
		return fmt.Errorf("cannot make the cluster: %w", err)
	}
	e.dispatcher = &dispatch.Dispatcher{
		Store: e.store, Watch: func() dispatch.Watcher { return e.store.Watch() }, Open: e.key.Open, Logger: e.cfg.Logger,
	}
	return e.handlers(creds)
}

// handlers puts the API and raft behind the port.
func (e *Engine) handlers(creds ca.Credentials) error {
	mux := http.NewServeMux()
	mux.Handle(apiconnect.NewAgentServiceHandler(e.dispatcher))
	mux.Handle(apiconnect.NewClusterServiceHandler(&operator.Server{
		Store: e.store, Watch: func() operator.Watcher { return e.store.Watch() }, Evaluator: e.cfg.Evaluator,
		LogSource: e.dispatcher, Key: e.key, History: e.history, Version: e.cfg.Version,
	}))
	config, err := creds.ServerTLS()
	if err != nil {
		return err
	}
	e.server = &http.Server{
		Handler: ca.Middleware(mux), TLSConfig: config, ReadHeaderTimeout: 10 * time.Second,
		ErrorLog: slog.NewLogLogger(e.cfg.Logger.Handler(), slog.LevelDebug),
	}
	e.server.Protocols = new(http.Protocols)
	e.server.Protocols.SetHTTP1(true) // curl
	e.server.Protocols.SetHTTP2(true)
	e.server.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: 1000}
	e.server.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){
		ca.ProtoRaft: func(_ *http.Server, c *tls.Conn, _ http.Handler) {
			if state := c.ConnectionState(); ca.Identify(&state).Role == ca.Engine {
				e.layer.Serve(c)
			}
		},
	}
	return nil
}

// ID is the node's.
func (e *Engine) ID() string { return e.id }

// Address is where the port is reached, host:port.
func (e *Engine) Address() string { return e.listener.Addr().String() }

// Issue makes credentials of this cluster.
func (e *Engine) Issue(role ca.Role, id string) (ca.Credentials, error) {
	return e.authority.Issue(role, id)
}

// ClusterID is "" before the cluster was made.
func (e *Engine) ClusterID() string { return e.store.View().Cluster().GetId() }

// Ready closes once this engine leads a cluster that is made.
func (e *Engine) Ready() <-chan struct{} { return e.ready }

// Run works until ctx ends.
func (e *Engine) Run(ctx context.Context) error {
	var work sync.WaitGroup
	defer work.Wait()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	work.Go(func() {
		if err := e.server.ServeTLS(e.listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
			cancel(fmt.Errorf("the port failed: %w", err))
		}
	})
	work.Go(func() { e.remember(ctx) })
	work.Go(func() { e.lead(ctx) })
	<-ctx.Done()
	e.server.Close()
	return context.Cause(ctx)
}

// remember keeps the history of events.
func (e *Engine) remember(ctx context.Context) {
	w := e.store.Watch()
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.Wake():
			changes, _ := w.Take()
			e.history.Add(changes)
		}
	}
}

// lead runs the leader's parts whenever this engine leads.
func (e *Engine) lead(ctx context.Context) {
	stop := func() {}
	defer func() { stop() }()
	for {
		select {
		case <-ctx.Done():
			return
		case leading := <-e.store.Leading():
			stop()
			stop = func() {}
			if leading {
				stop = e.leader(ctx)
			}
		}
	}
}

const tryAgain = 500 * time.Millisecond

// leader starts the leader's parts; the function it returns ends them.
func (e *Engine) leader(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var parts sync.WaitGroup
	keep := func(what string, run func(context.Context) error) {
		parts.Go(func() {
			for ctx.Err() == nil {
				if err := run(ctx); err != nil && ctx.Err() == nil {
					e.cfg.Logger.Warn(what+" stopped; it begins again", "error", err)
				}
				select {
				case <-ctx.Done():
				case <-time.After(tryAgain):
				}
			}
		})
	}
	keep("the sessions' dispatcher", e.dispatcher.Run)
	keep("the control loop", func(ctx context.Context) error {
		if err := e.found(ctx); err != nil {
			return err
		}
		loop := control.Loop{
			Store: e.store, Watch: func() control.Watcher { return e.store.Watch() }, Logger: e.cfg.Logger,
			Ready: func() { e.readyOnce.Do(func() { close(e.ready) }) },
		}
		return loop.Run(ctx)
	})
	return func() {
		cancel()
		parts.Wait()
	}
}

// found makes the cluster's row if there is none yet.
func (e *Engine) found(ctx context.Context) error {
	if err := e.store.Barrier(ctx); err != nil || e.store.View().Cluster() != nil {
		return err
	}
	name := e.cfg.Name
	if name == "" {
		name = "orch"
	}
	now := timestamppb.Now()
	_, err := e.store.Propose(ctx, &api.Command{Time: now, Version: state.CommandSet, Kind: &api.Command_PutCluster{PutCluster: &api.Cluster{
		Id: newID(), Name: name, Version: state.CommandSet, CreatedAt: now,
	}}})
	return err
}

// Close ends what Open began; after Run has returned.
func (e *Engine) Close() error {
	var err error
	if e.store != nil {
		err = e.store.Close()
	}
	if e.layer != nil {
		e.layer.Close()
	}
	if e.listener != nil {
		e.listener.Close()
	}
	if e.unlock != nil {
		e.unlock()
	}
	return err
}

// Package engine puts an engine together: the replicated state, the leader's
// loops, the sessions of agents, the certificates of nodes and the operators'
// API, behind one TLS port. It decides nothing itself. See DESIGN.md beside
// this file.
package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"orch/engine/api"
	"orch/engine/ca"
	"orch/engine/dispatch"
	"orch/engine/enroll"
	"orch/engine/folder"
	"orch/engine/operator"
	"orch/engine/rollout"
	"orch/engine/seal"
	"orch/engine/state"
	"orch/engine/store"
)

// Config of an engine.
type Config struct {
	Folder    *folder.Folder // of a host that is an engine; its keys are open
	Wallet    *ca.Wallet     // with the host's certificate
	Listen    string         // host:port; "": 127.0.0.1 and a free port
	Advertise string         // host:port where others reach it; "": where it listens
	Evaluator operator.Evaluator
	Strategy  rollout.Strategy // of rollouts
	Version   string
	Logger    *slog.Logger
	// Membership, if set, is told what the cluster says of this host.
	Membership func(*api.Membership)
}

// Engine is one voter, or on the way to be one.
type Engine struct {
	cfg        Config
	id         string
	key        seal.Key
	listener   net.Listener
	address    string
	layer      *store.Layer
	store      *store.Store
	server     *http.Server
	here       http.Handler // every service, for whoever may
	peers      *http.Transport
	desk       *enroll.Desk
	dispatcher *dispatch.Dispatcher
	history    *operator.Ring
	serving    atomic.Bool // it leads, and is ready
	ready      chan struct{}
	readyOnce  sync.Once
	heard      heard
}

// Open begins an engine in a folder that Found, or a cluster, has made an
// engine's. One that joins asks the others for the cluster's data key, until
// ctx ends. Run makes the engine work; Close must follow.
func Open(ctx context.Context, cfg Config) (e *Engine, err error) {
	keys, err := cfg.Folder.Keys()
	if err != nil {
		return nil, err
	}
	if keys.Log && !cfg.Folder.HasLog() {
		return nil, fmt.Errorf("the engine's log in %s is gone, and with it what this engine has voted for: it can't go on under its old identity; `orch node rm` it, then `orch cluster leave --force` and join here", cfg.Folder.Dir)
	}
	e = &Engine{cfg: cfg, id: cfg.Folder.ID, history: operator.NewRing(), ready: make(chan struct{})}
	opened := e // what returns nil, err sets e
	defer func() {
		if err != nil {
			opened.Close()
			e = nil
		}
	}()
	address := cfg.Listen
	if address == "" {
		address = "127.0.0.1:0"
	}
	if e.listener, err = net.Listen("tcp", address); err != nil {
		return nil, fmt.Errorf("cannot listen: %w", err)
	}
	if e.address = cfg.Advertise; e.address == "" {
		e.address = e.listener.Addr().String()
	}
	e.peers = &http.Transport{
		TLSClientConfig: cfg.Wallet.Client(ca.ProtoHTTP), ForceAttemptHTTP2: true,
		DialContext: (&net.Dialer{Timeout: peerWithin}).DialContext,
		HTTP2:       &http.HTTP2Config{SendPingTimeout: peerWithin, PingTimeout: peerWithin},
	}
	if keys.Data == nil {
		if err := e.fetchKeys(ctx); err != nil {
			return nil, err
		}
		if keys, err = cfg.Folder.Keys(); err != nil {
			return nil, err
		}
	}
	if e.key, err = seal.KeyOf(keys.Data); err != nil {
		return nil, err
	}
	return e, e.open(keys)
}

// peerWithin an engine whose host lives answers.
const peerWithin = time.Second

// advertised is an engine's address as raft knows it.
type advertised string

func (advertised) Network() string  { return "tcp" }
func (a advertised) String() string { return string(a) }

func (e *Engine) open(keys folder.Keys) (err error) {
	e.layer = store.NewLayer(advertised(e.address), e.cfg.Wallet.Client(ca.ProtoRaft))
	e.store, err = store.Open(store.Config{
		Dir: e.cfg.Folder.Dir, NodeID: e.id, Address: e.address, Layer: e.layer, Key: keys.Disk, Logger: e.cfg.Logger,
	})
	if err != nil {
		return err
	}
	if !keys.Log {
		if err := e.cfg.Folder.UpdateKeys(func(k *folder.Keys) { k.Log = true }); err != nil {
			return err
		}
	}
	if keys.Authority != nil {
		if err := e.store.Bootstrap(); err != nil {
			return fmt.Errorf("cannot make the cluster: %w", err)
		}
	}
	e.desk = &enroll.Desk{Store: e.store, Key: e.key, Heard: e.announced, MayLeave: e.MayLeave, Gone: e.gone}
	e.dispatcher = &dispatch.Dispatcher{
		Store: e.store, Watch: func() dispatch.Watcher { return e.store.Watch() }, Open: e.key.Open,
		Membership: enroll.Membership, Logger: e.cfg.Logger,
	}
	e.handlers()
	return nil
}

// ID is the node's.
func (e *Engine) ID() string { return e.id }

// Address is where others reach the engine, host:port.
func (e *Engine) Address() string { return e.address }

// Ready closes once requests are answered: this engine leads, or knows which
// one does.
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
	work.Go(func() { e.announce(ctx) })
	<-ctx.Done()
	e.HandOver()
	e.server.Close()
	return context.Cause(ctx)
}

// HandOver lets another engine lead, if this one does and there is one.
func (e *Engine) HandOver() {
	if !e.store.Leads() || len(e.store.Members()) < 2 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if err := e.store.Transfer(ctx); err != nil {
		e.cfg.Logger.Warn("cannot hand leadership over", "error", err)
	}
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
			changes, all := w.Take()
			e.history.Add(changes)
			if all || clusterChanged(changes) {
				e.relock()
			}
		}
	}
}

func clusterChanged(changes []state.Change) bool {
	for _, c := range changes {
		for _, d := range c.Deltas {
			if _, is := d.After.(*api.Cluster); is {
				return true
			}
		}
	}
	return false
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
	if e.peers != nil {
		e.peers.CloseIdleConnections()
	}
	return err
}

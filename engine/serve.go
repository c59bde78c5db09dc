package engine

import (
	"crypto/tls"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"connectrpc.com/connect"

	"orch/engine/access"
	"orch/engine/api"
	"orch/engine/api/apiconnect"
	"orch/engine/ca"
	"orch/engine/forward"
	"orch/engine/operator"
)

// handlers puts the API and raft behind the port.
func (e *Engine) handlers() {
	mux := http.NewServeMux()
	mux.Handle(apiconnect.NewNodeServiceHandler(e.desk))
	mux.Handle(apiconnect.NewClusterServiceHandler(&operator.Server{
		Store: e.store, Watch: func() operator.Watcher { return e.store.Watch() }, Evaluator: e.cfg.Evaluator, Strategy: e.cfg.Strategy,
		LogSource: e.dispatcher, Nodes: e.dispatcher, Key: e.key, History: e.history, Version: e.cfg.Version,
		Desk: e.desk, Engines: e, NodeID: e.id,
	}))
	anywhere := &forward.Forwarder{
		Here: mux, View: e.store.View, Leads: e.serving.Load, Leader: e.otherLeader, Why: e.whyNoLeader,
		Transport: e.peers, Logger: e.cfg.Logger,
	}
	path, agents := apiconnect.NewAgentServiceHandler(e.dispatcher)
	all := http.NewServeMux()
	all.Handle(path, e.onlyLeader(agents))
	// Any engine knows the keys, also while none leads.
	all.Handle(apiconnect.NodeServiceKeysProcedure, e.checked(mux))
	all.Handle("/", anywhere)
	e.here = all
	e.server = &http.Server{
		Handler: e.cfg.Wallet.Middleware(all), TLSConfig: e.cfg.Wallet.Server(), ConnContext: ca.ConnContext, ReadHeaderTimeout: 10 * time.Second,
		ErrorLog: slog.NewLogLogger(e.cfg.Logger.Handler(), slog.LevelDebug),
	}
	e.server.Protocols = new(http.Protocols)
	e.server.Protocols.SetHTTP1(true) // curl
	e.server.Protocols.SetHTTP2(true)
	e.server.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: 1000, SendPingTimeout: 5 * time.Second, PingTimeout: 5 * time.Second}
	e.server.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){
		ca.ProtoRaft: func(_ *http.Server, c *tls.Conn, _ http.Handler) {
			state := c.ConnectionState()
			id := e.cfg.Wallet.Identify(&state)
			if err := access.Raft(e.store.View(), id); err != nil {
				e.cfg.Logger.Warn("a host was refused that wanted to speak as an engine", "node", id.ID, "address", c.RemoteAddr(), "reason", err)
				return
			}
			e.layer.Serve(c)
		},
	}
}

// Local answers those who may open this host's socket, as an admin called by.
func (e *Engine) Local(by string) http.Handler {
	who := ca.Identity{Role: ca.Operator, ID: by, Level: "admin", Verified: true, Local: true}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.here.ServeHTTP(w, r.WithContext(ca.With(r.Context(), who)))
	})
}

var errorWriter = connect.NewErrorWriter()

func (e *Engine) checked(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := access.Check(e.store.View(), ca.From(r.Context()), r.URL.Path); err != nil {
			_ = errorWriter.Write(w, r, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// onlyLeader tells agents which engine leads, if it isn't this one: their
// sessions are long, and shouldn't depend on two engines.
func (e *Engine) onlyLeader(next http.Handler) http.Handler {
	checked := e.checked(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if e.serving.Load() {
			checked.ServeHTTP(w, r)
			return
		}
		err := connect.NewError(connect.CodeUnavailable, errors.New("this engine does not lead"))
		if leader := e.otherLeader(); leader != "" {
			err.Meta().Set(api.LeaderHeader, leader)
		}
		_ = errorWriter.Write(w, r, err)
	})
}

// otherLeader is the address of another engine that leads; empty: none is
// known.
func (e *Engine) otherLeader() string {
	id, address := e.store.Leader()
	if id == e.id || strings.TrimSpace(id) == "" {
		return ""
	}
	return address
}

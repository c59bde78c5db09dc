// Package forward lets any engine serve any request: one that leads does it
// itself, another passes it on to the one that leads and says for whom.
package forward

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"time"

	"connectrpc.com/connect"

	"orch/engine/access"
	"orch/engine/api"
	"orch/engine/ca"
	"orch/engine/state"
)

// Forwarder is an http.Handler.
type Forwarder struct {
	Here http.Handler // the engine's own services
	View func() state.View
	// Leads says that this engine leads and is ready.
	Leads func() bool
	// Leader is the address of another engine that leads; empty: none known.
	Leader func() string
	// Why says in an operator's words why no engine leads.
	Why func() string
	// Transport reaches other engines as this one.
	Transport http.RoundTripper
	Logger    *slog.Logger
}

const (
	// patience is how long a request waits for an engine to lead: as long as
	// an election takes, several times over.
	patience = 4 * time.Second
	look     = 20 * time.Millisecond
	// mostBody of a request, in bytes.
	mostBody = 256 << 20
)

var errorWriter = connect.NewErrorWriter()

func (f *Forwarder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case f.Leads():
		f.here(w, r)
		return
	case ca.Forwarded(r):
		err := connect.NewError(connect.CodeUnavailable, errors.New("leadership has just changed: try again"))
		err.Meta().Set(api.ReasonHeader, api.ReasonAgain)
		_ = errorWriter.Write(w, r, err)
		return
	}
	// All methods that come here have one request, so it can be sent again.
	body, err := io.ReadAll(io.LimitReader(r.Body, mostBody))
	if err != nil {
		return // the client is gone
	}
	again := func() *http.Request {
		r := r.Clone(r.Context())
		r.Body = io.NopCloser(bytes.NewReader(body))
		return r
	}
	stale := access.Stale(r.URL.Path)
	within := patience
	if stale {
		within /= 2
	}
	ctx, cancel := context.WithTimeout(r.Context(), within)
	defer cancel()
	for {
		leads, address := f.wait(ctx)
		switch {
		case leads:
			f.here(w, again())
			return
		case address != "":
			err := f.pass(w, again(), address)
			if err == nil {
				return
			}
			// One that was never reached did nothing. It may be followed by
			// another leader soon.
			if unreached(err) || stale {
				if pause(ctx) {
					continue
				}
			}
			f.fail(w, r, "the engine that leads, at "+address+", does not answer: "+err.Error())
			return
		case stale:
			w.Header().Set(api.StaleHeader, f.Why())
			f.here(w, again())
			return
		default:
			f.fail(w, r, f.Why())
			return
		}
	}
}

func unreached(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// pause is false once ctx has ended.
func pause(ctx context.Context) bool {
	t := time.NewTimer(look)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

func (f *Forwarder) fail(w http.ResponseWriter, r *http.Request, why string) {
	// A client that is gone needs no answer.
	_ = errorWriter.Write(w, r, connect.NewError(connect.CodeUnavailable, errors.New(why)))
}

// wait waits until some engine leads.
func (f *Forwarder) wait(ctx context.Context) (leads bool, address string) {
	for {
		if f.Leads() {
			return true, ""
		}
		if address := f.Leader(); address != "" {
			return false, address
		}
		if !pause(ctx) {
			return false, ""
		}
	}
}

func (f *Forwarder) here(w http.ResponseWriter, r *http.Request) {
	if err := access.Check(f.View(), ca.From(r.Context()), r.URL.Path); err != nil {
		_ = errorWriter.Write(w, r, err)
		return
	}
	f.Here.ServeHTTP(w, r)
}

// pass lets another engine answer; an error says that it didn't begin to.
func (f *Forwarder) pass(w http.ResponseWriter, r *http.Request, address string) (failed error) {
	caller := ca.From(r.Context())
	proxy := httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host, p.Out.Host = "https", address, ca.ServerName
			ca.PassOn(p.Out.Header, caller)
		},
		Transport: f.Transport, FlushInterval: -1,
		ErrorLog:     slog.NewLogLogger(f.Logger.Handler(), slog.LevelDebug),
		ErrorHandler: func(_ http.ResponseWriter, _ *http.Request, err error) { failed = err },
	}
	proxy.ServeHTTP(w, r)
	return failed
}

package ingress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"sync"
	"time"

	"orch/engine/api"
)

// Of protocol "http" requests are balanced, not connections: a client's
// connection outlives any task, and a request that no task has seen goes to
// another one. HTTP/1.1, HTTP/2 without TLS (gRPC) and upgrades (WebSocket)
// are understood.

const (
	headerWithin = 30 * time.Second
	idleFor      = 5 * time.Minute
	mostHeader   = 64 << 10
	idlePerTask  = 256 // connections that are kept for later requests
	// unusedFor a connection to a task is kept: by a relay it keeps the other
	// node's process from ending, if that was replaced.
	unusedFor = 30 * time.Second
)

// serveHTTP serves until ctx ends, then what is under way until conns does.
// Plain requests are served apart.
func (f *front) serveHTTP(ctx, conns context.Context, l net.Listener) {
	one, two := f.transport(false), f.transport(true)
	kept := &pool{dial: f.reach}
	proxy := &httputil.ReverseProxy{
		Transport: &balancer{front: f, one: one, two: two}, BufferPool: &buffers,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetXForwarded()
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = "http", "task", r.In.Host
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			status := http.StatusBadGateway
			if errors.Is(err, errNoTask) {
				status = http.StatusServiceUnavailable
			}
			http.Error(w, err.Error(), status)
		},
		ErrorLog: slog.NewLogLogger(f.logger.Handler(), slog.LevelDebug),
	}
	server := &http.Server{
		Handler: f.parting(proxy), ReadHeaderTimeout: headerWithin, IdleTimeout: idleFor, MaxHeaderBytes: mostHeader, Protocols: new(http.Protocols),
		ErrorLog: proxy.ErrorLog,
	}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	rest := &handed{Listener: l, conns: make(chan net.Conn), done: make(chan struct{})}
	most := &plain{front: f, kept: kept, over: rest, idle: map[net.Conn]bool{}}
	stop := context.AfterFunc(ctx, func() { l.Close() })
	served := make(chan struct{})
	go func() { _ = server.Serve(rest); close(served) }()
	most.serve(conns, l) // until ctx ends, or the listener fails by itself
	stop()
	l.Close()
	most.end(conns) // with the last request, or with conns
	if f.lame.Load() {
		rest.wait(conns)
	}
	_ = server.Shutdown(conns) // the same
	server.Close()
	<-served
	one.CloseIdleConnections()
	two.CloseIdleConnections()
	kept.close()
}

// parting tells the clients of a front that goes to come again by another
// connection, which is that of its successor.
func (f *front) parting(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f.lame.Load() && r.Header.Get("Upgrade") == "" {
			w.Header().Set("Connection", "close") // HTTP/2: no more requests there
		}
		h.ServeHTTP(w, r)
	})
}

// transport speaks to tasks; the target stands in the request's context.
func (f *front) transport(h2 bool) *http.Transport {
	t := &http.Transport{
		DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return f.reach(ctx, targetOf(ctx)) },
		MaxIdleConnsPerHost: idlePerTask, IdleConnTimeout: unusedFor, DisableCompression: true, Protocols: new(http.Protocols),
	}
	t.Protocols.SetHTTP1(!h2)
	t.Protocols.SetUnencryptedHTTP2(h2)
	return t
}

type targetKey struct{}

func targetOf(ctx context.Context) *api.Target { return ctx.Value(targetKey{}).(*api.Target) }

var errNoTask = errors.New("no task of the service is ready")

// balancer sends each request to a task, and to another one if the first
// can't have seen it.
type balancer struct {
	front    *front
	one, two http.RoundTripper // HTTP/1.1, HTTP/2
}

// RoundTrip implements http.RoundTripper.
func (b *balancer) RoundTrip(r *http.Request) (*http.Response, error) {
	f := b.front
	body := &untouched{ReadCloser: r.Body}
	wait, cancel := context.WithTimeout(r.Context(), hold)
	defer cancel()
	tried := tries{}
	for {
		target := f.next(wait, tried)
		if target == nil {
			return nil, errNoTask
		}
		began := time.Now()
		answer, err := b.send(r, body, target)
		if err == nil || r.Context().Err() == nil { // a client that gave up says nothing of the task
			f.count(target, began, err != nil || answer.StatusCode >= http.StatusInternalServerError)
		}
		if err == nil {
			answer.Body = releasing(answer.Body, sync.OnceFunc(func() { f.release(target) }))
			return answer, nil
		}
		f.release(target)
		if r.Context().Err() != nil || body.read || !again(r, err) {
			return nil, err
		}
		tried[target.TaskId] = !unreached(err)
	}
}

// send asks one task.
func (b *balancer) send(r *http.Request, body *untouched, target *api.Target) (*http.Response, error) {
	out := r.WithContext(context.WithValue(r.Context(), targetKey{}, target))
	url := *r.URL
	url.Host = hostOf(target) // connections are kept by it
	out.URL = &url
	if r.Body != nil && r.Body != http.NoBody {
		out.Body = body
	}
	if r.ProtoMajor == 2 {
		return b.two.RoundTrip(out)
	}
	return b.one.RoundTrip(out)
}

// hostOf is a host's name that stands for a target.
func hostOf(t *api.Target) string { return fmt.Sprintf("%x.task", t.TaskId) }

// again says that another task may be asked: either nobody was reached, or
// asking twice does no harm.
func again(r *http.Request, err error) bool {
	if unreached(err) {
		return true
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return false
}

// unreached says that there was no connection to the task at all.
func unreached(err error) bool {
	var op *net.OpError
	var relayed *unreachable
	return errors.As(err, &op) && op.Op == "dial" || errors.As(err, &relayed)
}

// untouched is a request's body of which it is known whether any was read.
// Closing is left to the server.
type untouched struct {
	io.ReadCloser
	read bool
}

func (u *untouched) Read(p []byte) (int, error) {
	u.read = true
	return u.ReadCloser.Read(p)
}

func (u *untouched) Close() error { return nil }

// releasing is an answer's body that tells when the request is over; that of an
// upgrade stays writable.
func releasing(body io.ReadCloser, over func()) io.ReadCloser {
	if both, ok := body.(io.ReadWriteCloser); ok {
		return &upgraded{both, over}
	}
	return &answered{body, over}
}

type answered struct {
	io.ReadCloser
	over func()
}

func (a *answered) Close() error {
	defer a.over()
	return a.ReadCloser.Close()
}

type upgraded struct {
	io.ReadWriteCloser
	over func()
}

func (u *upgraded) Close() error {
	defer u.over()
	return u.ReadWriteCloser.Close()
}

// buffers are for copying bodies.
var buffers bufferPool

type bufferPool struct{ pool sync.Pool }

func (b *bufferPool) Get() []byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return *p
	}
	return make([]byte, 32<<10)
}

func (b *bufferPool) Put(p []byte) { b.pool.Put(&p) }

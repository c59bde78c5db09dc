// Package relay leads connections from one node's ingress to tasks of another,
// whatever the tasks listen on there: each is a stream of one HTTP/2 connection
// between the two nodes, with mutual TLS by their certificates. A stream costs
// no handshake, and ends like a TCP connection: each direction by itself, or
// all at once.
package relay

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	dialWithin = 2 * time.Second
	// frame and stream sizes, in bytes: large answers need few round trips.
	frame      = 256 << 10
	perStream  = 2 << 20
	perPeer    = 16 << 20
	mostAtOnce = 1 << 20 // streams of a peer
	// A peer that is silent for so long is asked, and then given up.
	silentAfter = 2 * time.Second
	answerIn    = 2 * time.Second
)

func http2() *http.HTTP2Config {
	return &http.HTTP2Config{
		MaxReadFrameSize: frame, MaxReceiveBufferPerStream: perStream, MaxReceiveBufferPerConnection: perPeer,
		MaxConcurrentStreams: mostAtOnce, SendPingTimeout: silentAfter, PingTimeout: answerIn,
	}
}

// Server lets other nodes reach the tasks of this one.
type Server struct {
	TLS *tls.Config
	// Peer says which node is at the other end; "" is refused.
	Peer func(*tls.ConnectionState) (node string)
	// Lookup is where a task listens that others may connect to.
	Lookup func(task string, port uint32) (address string, ok bool)
	Logger *slog.Logger

	mu     sync.Mutex
	server *http.Server
}

// Serve serves on l until ctx ends; then its connections are closed.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler: http.HandlerFunc(s.serve), TLSConfig: s.TLS, HTTP2: http2(), ReadHeaderTimeout: dialWithin,
		ErrorLog: slog.NewLogLogger(s.Logger.Handler(), slog.LevelDebug),
	}
	s.mu.Lock()
	s.server = server
	s.mu.Unlock()
	defer context.AfterFunc(ctx, func() { server.Close() })()
	err := server.ServeTLS(l, "", "")
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// Retire ends listening, and tells the other nodes to connect anew for what is
// to come. It returns once what is open has ended, or ctx.
func (s *Server) Retire(ctx context.Context) {
	s.mu.Lock()
	server := s.server
	s.mu.Unlock()
	if server != nil {
		_ = server.Shutdown(ctx)
	}
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	network, task, port, ok := parse(r.URL.Path)
	if s.Peer(r.TLS) == "" {
		http.Error(w, "only nodes of this cluster are let in", http.StatusForbidden)
		return
	}
	address, known := s.Lookup(task, port)
	if !ok || !known {
		http.Error(w, fmt.Sprintf("no task %q listens on %d here", task, port), http.StatusNotFound)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), dialWithin)
	c, err := (&net.Dialer{}).DialContext(ctx, network, address)
	cancel()
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer c.Close()
	defer context.AfterFunc(r.Context(), func() { c.Close() })() // the other end has given up
	w.WriteHeader(http.StatusOK)
	control := http.NewResponseController(w)
	if control.Flush() != nil {
		return
	}
	if network == "udp" {
		datagrams(w, r, control, c)
		return
	}
	sent := make(chan error, 1)
	go func() { // ends with the request's body, or with the task's connection
		_, err := io.Copy(c, r.Body)
		if err == nil {
			err = c.(*net.TCPConn).CloseWrite()
		}
		sent <- err
	}()
	out := pieces{w, control}
	_, err = io.Copy(out, c)
	if err == nil {
		_, err = out.Write(nil)
	}
	if err != nil {
		r.Body.Close()
		<-sent
		panic(http.ErrAbortHandler) // so that the other end sees no orderly end
	}
	// The task has said all, and the other end knows it; what it is still told is awaited no longer than
	// the other end is there.
	if <-sent != nil {
		panic(http.ErrAbortHandler)
	}
}

// pieces sends each write at once, as its length, 4 bytes big-endian, and itself.
// An empty one is the end: HTTP/2 has none in this direction that would leave the
// other one open.
type pieces struct {
	w       io.Writer
	control *http.ResponseController
}

func (p pieces) Write(b []byte) (int, error) {
	var size [4]byte
	binary.BigEndian.PutUint32(size[:], uint32(len(b)))
	if _, err := p.w.Write(size[:]); err != nil {
		return 0, err
	}
	n, err := p.w.Write(b)
	if err == nil {
		err = p.control.Flush()
	}
	return n, err
}

func path(network, task string, port uint32) string {
	return "/" + network + "/" + strconv.FormatUint(uint64(port), 10) + "/" + task
}

func parse(path string) (network, task string, port uint32, ok bool) {
	parts := strings.SplitN(path, "/", 4)
	if len(parts) != 4 || parts[1] != "tcp" && parts[1] != "udp" {
		return "", "", 0, false
	}
	n, err := strconv.ParseUint(parts[2], 10, 16)
	return parts[1], parts[3], uint32(n), err == nil
}

var errClosed = errors.New("the connection is closed")

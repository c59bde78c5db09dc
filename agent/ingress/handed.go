package ingress

import (
	"context"
	"net"
	"sync"
	"time"
)

// handed is a listener for connections that were accepted elsewhere.
type handed struct {
	net.Listener
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
	open  sync.WaitGroup // what was given and isn't closed
}

// wait returns once all that was given is closed, or ctx ends.
func (h *handed) wait(ctx context.Context) {
	closed := make(chan struct{})
	go func() { h.open.Wait(); close(closed) }()
	select {
	case <-closed:
	case <-ctx.Done():
	}
}

// Accept implements net.Listener.
func (h *handed) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (h *handed) Close() error {
	h.once.Do(func() { close(h.done) })
	return nil
}

// give hands a connection over, with what was read of it.
func (h *handed) give(c net.Conn, read []byte) {
	_ = c.SetReadDeadline(time.Time{})
	h.open.Add(1)
	r := &resumed{Conn: c, read: read, closed: sync.OnceFunc(h.open.Done)}
	select {
	case h.conns <- r:
	case <-h.done:
		r.Close()
	}
}

// resumed is a connection of which something was read before.
type resumed struct {
	net.Conn
	read   []byte
	closed func() // nil: nobody wants to know
}

// Close implements net.Conn.
func (r *resumed) Close() error {
	if r.closed != nil {
		defer r.closed()
	}
	return r.Conn.Close()
}

func (r *resumed) Read(b []byte) (int, error) {
	if len(r.read) > 0 {
		n := copy(b, r.read)
		r.read = r.read[n:]
		return n, nil
	}
	return r.Conn.Read(b)
}

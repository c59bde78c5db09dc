package store

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// Layer carries raft over connections that an engine's TLS port accepted for
// it. It implements raft.StreamLayer.
type Layer struct {
	address net.Addr
	dial    *tls.Config
	conns   chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

// NewLayer makes a layer that is reached at address and dials with config.
func NewLayer(address net.Addr, config *tls.Config) *Layer {
	return &Layer{address: address, dial: config, conns: make(chan net.Conn), closed: make(chan struct{})}
}

// Serve hands an accepted connection to raft and returns when raft is done
// with it.
func (l *Layer) Serve(c net.Conn) {
	held := &heldConn{Conn: c, done: make(chan struct{})}
	select {
	case l.conns <- held:
	case <-l.closed:
		c.Close()
		return
	}
	select {
	case <-held.done:
	case <-l.closed:
		c.Close()
	}
}

type heldConn struct {
	net.Conn
	once sync.Once
	done chan struct{}
}

func (c *heldConn) Close() error {
	c.once.Do(func() { close(c.done) })
	return c.Conn.Close()
}

// Accept and those below are raft's.
func (l *Layer) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, errors.New("the layer is closed")
	}
}

func (l *Layer) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *Layer) Addr() net.Addr { return l.address }

func (l *Layer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return (&tls.Dialer{Config: l.dial}).DialContext(ctx, "tcp", string(address))
}

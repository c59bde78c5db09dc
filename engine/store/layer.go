package store

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/hashicorp/raft"
)

// Layer carries raft over connections that an engine's TLS port accepted for
// it. It implements raft.StreamLayer.
type Layer struct {
	address net.Addr
	dial    *tls.Config
	conns   chan net.Conn
	ctx     context.Context // ends with Close
	end     context.CancelFunc
}

// NewLayer makes a layer that is reached at address and dials with config.
func NewLayer(address net.Addr, config *tls.Config) *Layer {
	ctx, end := context.WithCancel(context.Background())
	return &Layer{address: address, dial: config, conns: make(chan net.Conn), ctx: ctx, end: end}
}

// Serve hands an accepted connection to raft and returns when raft is done
// with it.
func (l *Layer) Serve(c net.Conn) {
	held := l.hold(c)
	select {
	case l.conns <- held:
	case <-l.ctx.Done():
	}
	<-held.ctx.Done()
}

// heldConn ends with its layer: raft leaves idle connections open when it
// ends, and waits for those that are in use.
type heldConn struct {
	net.Conn
	ctx context.Context
	end context.CancelFunc
}

func (l *Layer) hold(c net.Conn) *heldConn {
	ctx, end := context.WithCancel(l.ctx)
	context.AfterFunc(ctx, func() { c.Close() })
	return &heldConn{c, ctx, end}
}

func (c *heldConn) Close() error {
	err := c.Conn.Close()
	c.end()
	return err
}

// Accept and those below are raft's.
func (l *Layer) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.ctx.Done():
		return nil, errors.New("the layer is closed")
	}
}

// Close ends all connections, also those that are being made.
func (l *Layer) Close() error {
	l.end()
	return nil
}

// Addr is where the layer is reached.
func (l *Layer) Addr() net.Addr { return l.address }

var errDial = errors.New("cannot reach the engine at")

// Dial reaches another engine's layer within dialWithin at most.
func (l *Layer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(l.ctx, min(timeout, dialWithin))
	defer cancel()
	c, err := (&tls.Dialer{Config: l.dial}).DialContext(ctx, "tcp", string(address))
	if err != nil {
		return nil, fmt.Errorf("%w %s: %w", errDial, address, err)
	}
	return l.hold(c), nil
}

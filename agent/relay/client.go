package relay

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"
)

// Client reaches tasks of other nodes. It is safe for concurrent use.
type Client struct {
	// TLS is the configuration for reaching a node.
	TLS func(node string) *tls.Config
	// Address is where a node's relay is now.
	Address func(node string) (address string, ok bool)

	once      sync.Once
	transport *http.Transport
}

func (c *Client) init() {
	c.once.Do(func() {
		c.transport = &http.Transport{
			ForceAttemptHTTP2: true, HTTP2: http2(), Protocols: new(http.Protocols), DisableCompression: true,
			DialTLSContext: c.dial, IdleConnTimeout: 5 * time.Minute,
		}
		c.transport.Protocols.SetHTTP2(true)
	})
}

// dial connects to a node; its id stands for its host's name.
func (c *Client) dial(ctx context.Context, network, hostport string) (net.Conn, error) {
	node, _, err := net.SplitHostPort(hostport)
	if err != nil {
		return nil, err
	}
	address, ok := c.Address(node)
	if !ok {
		return nil, fmt.Errorf("it is not known where node %q is reached", node)
	}
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: dialWithin}, Config: c.TLS(node)}
	return d.DialContext(ctx, network, address)
}

// Close ends connections that are idle.
func (c *Client) Close() {
	c.init()
	c.transport.CloseIdleConnections()
}

// Try says whether a node's relay is reached and lets this one in.
func (c *Client) Try(ctx context.Context, node string) error {
	c.init()
	request := (&http.Request{Method: http.MethodPost, URL: &url.URL{Scheme: "https", Host: node, Path: path("tcp", "", 0)}, Header: http.Header{}}).WithContext(ctx)
	answer, err := c.transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode == http.StatusForbidden {
		text, _ := io.ReadAll(io.LimitReader(answer.Body, 1000))
		return fmt.Errorf("it answers: %s", strings.TrimSpace(string(text)))
	}
	return nil // that it knows no such task is an answer
}

// Connect opens a connection to a port of a task on a node. ctx bounds the
// opening, not the connection. The connection's CloseWrite ends one direction;
// deadlines it has none. Of network "udp" each Read and Write is a datagram.
func (c *Client) Connect(ctx context.Context, network, node, task string, port uint32) (net.Conn, error) {
	stream, stale, err := c.connect(ctx, network, node, task, port)
	if err != nil && stale && ctx.Err() == nil { // the other node's relay has begun anew, perhaps
		stream, _, err = c.connect(ctx, network, node, task, port)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot reach %q on port %d: %w", task, port, err)
	}
	if network == "udp" {
		return datagramConn{stream}, nil
	}
	return stream, nil
}

// connect also says whether it failed on a connection that was there before.
func (c *Client) connect(ctx context.Context, network, node, task string, port uint32) (stream *conn, stale bool, err error) {
	c.init()
	during, cancel := context.WithCancel(context.WithoutCancel(ctx))
	opened := context.AfterFunc(ctx, cancel)
	r, w := io.Pipe()
	traced := httptrace.WithClientTrace(during, &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { stale = i.Reused }})
	request := (&http.Request{
		Method: http.MethodPost, URL: &url.URL{Scheme: "https", Host: node, Path: path(network, task, port)}, Header: http.Header{}, Body: r, ContentLength: -1,
	}).WithContext(traced)
	answer, err := c.transport.RoundTrip(request)
	if !opened() && err == nil {
		err = ctx.Err()
		answer.Body.Close()
	}
	if err == nil && answer.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(answer.Body, 1000))
		answer.Body.Close()
		stale = false
		err = fmt.Errorf("node %q: %s", node, strings.TrimSpace(string(text)))
	}
	if err != nil {
		cancel()
		w.CloseWithError(err)
		return nil, stale, err
	}
	return &conn{from: answer.Body, to: w, cancel: cancel, node: node}, false, nil
}

// conn is a stream as a connection.
type conn struct {
	from   io.ReadCloser
	to     *io.PipeWriter
	left   uint32 // of the piece at hand
	ended  bool   // the other end has said all
	cancel context.CancelFunc
	node   string
}

// Read implements net.Conn; see pieces.
func (c *conn) Read(b []byte) (int, error) {
	for c.left == 0 {
		if c.ended {
			return 0, io.EOF
		}
		var size [4]byte
		if _, err := io.ReadFull(c.from, size[:]); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return 0, err
		}
		c.left = binary.BigEndian.Uint32(size[:])
		c.ended = c.left == 0
	}
	n, err := c.from.Read(b[:min(len(b), int(c.left))])
	c.left -= uint32(n)
	if errors.Is(err, io.EOF) && (c.left > 0 || !c.ended) {
		err = nil // the next Read says that it broke off
	}
	return n, err
}

func (c *conn) Write(b []byte) (int, error) { return c.to.Write(b) }
func (c *conn) CloseWrite() error           { return c.to.Close() }

func (c *conn) Close() error {
	c.to.CloseWithError(errClosed)
	c.cancel()
	return c.from.Close()
}

func (c *conn) LocalAddr() net.Addr              { return address("here") }
func (c *conn) RemoteAddr() net.Addr             { return address(c.node) }
func (c *conn) SetDeadline(time.Time) error      { return os.ErrNoDeadline }
func (c *conn) SetReadDeadline(time.Time) error  { return os.ErrNoDeadline }
func (c *conn) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }

type address string

func (a address) Network() string { return "relay" }
func (a address) String() string  { return string(a) }

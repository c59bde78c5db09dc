package main

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"sync"
	"time"

	"connectrpc.com/connect"

	"orch/cmd/internal/socket"
	"orch/engine/api"
	"orch/engine/api/apiconnect"
	"orch/engine/ca"
	"orch/engine/reach"
)

// dialContext makes a client of a context, or of ssh://[user@]host[:port].
func dialContext(ctx context.Context, name string) (clusterClient, error) {
	c, err := readContext(name)
	if err != nil {
		return nil, err
	}
	if c.SSH != "" {
		h := socket.Client(func(context.Context) (net.Conn, error) { return dialSSH(c.SSH) })
		// ssh itself says what is wrong, once.
		return apiconnect.NewClusterServiceClient(h, socket.URL, connect.WithGRPC()), nil
	}
	client, r, err := dialSaved(name, c)
	if err != nil {
		return nil, err
	}
	if r.old() {
		_ = r.renew(ctx) // what is asked for fails for the same reason, and says so
	}
	return client, nil
}

// dialSaved makes a client of saved credentials, which renew themselves.
func dialSaved(name string, c *savedContext) (clusterClient, *renewer, error) {
	creds, err := c.credentials()
	if err != nil {
		return nil, nil, fmt.Errorf("context %q is damaged: %w", name, err)
	}
	key, err := parseKeyPEM(c.Key)
	if err != nil {
		return nil, nil, fmt.Errorf("context %q is damaged: %w", name, err)
	}
	wallet, err := ca.NewWallet(ca.Credentials{Key: key, Certificate: creds.Certificate, Roots: creds.Roots, Bridges: creds.Bridges})
	if err != nil {
		return nil, nil, fmt.Errorf("cannot use context %q: %w", name, err)
	}
	var addresses []string
	for _, e := range creds.Engines {
		addresses = append(addresses, e.Address)
	}
	h := reach.New(func() []string { return addresses }, wallet.Client(ca.ProtoHTTP))
	r := &renewer{name: name, saved: c, key: key, wallet: wallet, http: h}
	r.client = apiconnect.NewClusterServiceClient(h, reach.URL, clientOptions())
	return apiconnect.NewClusterServiceClient(h, reach.URL, connect.WithInterceptors(r), clientOptions()), r, nil
}

// renewer is a connect.Interceptor that gets a new certificate when the
// cluster says that the one in use has ended, or that its CA was replaced.
type renewer struct {
	name   string // of the context
	saved  *savedContext
	key    *ecdsa.PrivateKey
	wallet *ca.Wallet
	http   *http.Client
	client clusterClient // without this interceptor

	mu    sync.Mutex
	taken bool // the cluster took the certificate
}

// old says that the certificate is past half of its life.
func (r *renewer) old() bool {
	leaf := r.wallet.Leaf()
	return time.Now().After(leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 2))
}

// renew gets a certificate, and keeps it in the context.
func (r *renewer) renew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	csr, err := ca.Request(r.key)
	if err != nil {
		return err
	}
	out, err := r.client.RenewOperator(ctx, connect.NewRequest(&api.RenewOperatorRequest{Csr: csr}))
	if err != nil {
		return err
	}
	creds := out.Msg
	if err := r.wallet.Set(ca.Credentials{Key: r.key, Certificate: creds.Certificate, Roots: creds.Roots, Bridges: creds.Bridges}); err != nil {
		return err
	}
	r.http.CloseIdleConnections() // they were made with the old one
	if next, err := newContext(creds, []byte(r.saved.Key)); err == nil {
		_ = writeContext(r.name, next) // the next command tries again
	}
	return nil
}

// renewFor is true if err asked for another certificate, and there is one now.
func (r *renewer) renewFor(ctx context.Context, err error) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	var refused *connect.Error
	if errors.As(err, &refused) && refused.Meta().Get(api.ReasonHeader) == api.ReasonRenew {
		return r.renew(ctx) == nil
	}
	r.taken = r.taken || err == nil
	return false
}

// WrapUnary and those below make a connect.Interceptor.
func (r *renewer) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, ask connect.AnyRequest) (connect.AnyResponse, error) {
		out, err := next(ctx, ask)
		if r.renewFor(ctx, err) {
			return next(ctx, ask)
		}
		return out, err
	}
}

// WrapStreamingClient asks for something small first: a stream can't be begun
// again.
func (r *renewer) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		r.mu.Lock()
		taken := r.taken
		r.mu.Unlock()
		if !taken {
			_, err := r.client.Info(ctx, connect.NewRequest(&api.InfoRequest{}))
			r.renewFor(ctx, err)
		}
		return next(ctx, spec)
	}
}

func (r *renewer) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

// dialSSH lets the system's ssh run `orch host stdio` on an engine's host.
func dialSSH(url string) (net.Conn, error) {
	cmd := exec.Command("ssh", "-T", url, "orch", "host", "stdio")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("cannot run ssh: %w", err)
	}
	return &pipeConn{in, out, cmd}, nil
}

// pipeConn is a connection over a command's standard streams.
type pipeConn struct {
	io.WriteCloser
	out io.ReadCloser
	cmd *exec.Cmd
}

func (c *pipeConn) Read(p []byte) (int, error) { return c.out.Read(p) }

func (c *pipeConn) Close() error {
	err := errors.Join(c.WriteCloser.Close(), c.out.Close())
	_ = c.cmd.Process.Kill() // it ends by itself, or hangs
	_ = c.cmd.Wait()
	return err
}

type pipeAddr struct{}

func (pipeAddr) Network() string { return "ssh" }
func (pipeAddr) String() string  { return "ssh" }

func (c *pipeConn) LocalAddr() net.Addr              { return pipeAddr{} }
func (c *pipeConn) RemoteAddr() net.Addr             { return pipeAddr{} }
func (c *pipeConn) SetDeadline(time.Time) error      { return nil }
func (c *pipeConn) SetReadDeadline(time.Time) error  { return nil }
func (c *pipeConn) SetWriteDeadline(time.Time) error { return nil }

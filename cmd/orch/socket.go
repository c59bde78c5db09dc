package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"

	"connectrpc.com/connect"

	"orch/engine/api/apiconnect"
)

// socketName is that of a daemon's socket in its data folder. Who may open it
// may do everything.
const socketName = "orch.sock"

// socketPath is short enough for a socket, whatever the folder's path: the
// kernel takes about a hundred bytes.
func socketPath(dir string) (path string, done func(), err error) {
	if runtime.GOOS != "linux" || len(dir) < 80 {
		return filepath.Join(dir, socketName), func() {}, nil
	}
	f, err := os.Open(dir)
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", f.Fd(), socketName), func() { f.Close() }, nil
}

// listenSocket makes the socket; the folder is this process's.
func listenSocket(dir string) (net.Listener, error) {
	if err := os.Remove(filepath.Join(dir, socketName)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("cannot remove an old socket: %w", err)
	}
	path, done, err := socketPath(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on the socket: %w", err)
	}
	defer done()
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on the socket: %w", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // its path may be gone by then
	if err := os.Chmod(filepath.Join(dir, socketName), 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("cannot protect the socket: %w", err)
	}
	return l, nil
}

// dialSocket connects to the daemon that has the folder.
func dialSocket(ctx context.Context, dir string) (net.Conn, error) {
	path, done, err := socketPath(dir)
	if err != nil {
		return nil, err
	}
	defer done()
	return (&net.Dialer{}).DialContext(ctx, "unix", path)
}

// plainHTTP2 speaks HTTP/2 over connections that need no TLS.
func plainHTTP2(dial func(context.Context) (net.Conn, error)) *http.Client {
	t := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		Protocols:   new(http.Protocols),
	}
	t.Protocols.SetUnencryptedHTTP2(true)
	return &http.Client{Transport: t}
}

// socketURL is asked over a socket.
const socketURL = "http://orch"

type hostClient = apiconnect.HostServiceClient

func socketClients(dir string) (clusterClient, hostClient) {
	h := plainHTTP2(func(ctx context.Context) (net.Conn, error) { return dialSocket(ctx, dir) })
	return apiconnect.NewClusterServiceClient(h, socketURL, clientOptions()), apiconnect.NewHostServiceClient(h, socketURL, connect.WithGRPC())
}

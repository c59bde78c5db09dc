// Package socket is the way to the daemon of this host: a socket in its data
// folder, and the HTTP/2 without TLS that is spoken there.
package socket

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
)

// Name is that of a daemon's socket in its data folder. Who may open it
// may do everything.
const Name = "orch.sock"

// reachable is a path that is short enough for a socket, whatever the folder's path: the
// kernel takes about a hundred bytes.
func reachable(dir string) (path string, done func(), err error) {
	if runtime.GOOS != "linux" || len(dir) < 80 {
		return filepath.Join(dir, Name), func() {}, nil
	}
	f, err := os.Open(dir)
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", f.Fd(), Name), func() { f.Close() }, nil
}

// Listen makes the socket; the folder is this process's.
func Listen(dir string) (net.Listener, error) {
	if err := os.Remove(filepath.Join(dir, Name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("cannot remove an old socket: %w", err)
	}
	path, done, err := reachable(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on the socket: %w", err)
	}
	defer done()
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on the socket: %w", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // its path may be gone by then
	if err := os.Chmod(filepath.Join(dir, Name), 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("cannot protect the socket: %w", err)
	}
	return l, nil
}

// Dial connects to the daemon that has the folder.
func Dial(ctx context.Context, dir string) (net.Conn, error) {
	path, done, err := reachable(dir)
	if err != nil {
		return nil, err
	}
	defer done()
	return (&net.Dialer{}).DialContext(ctx, "unix", path)
}

// Client speaks HTTP/2 over connections that need no TLS.
func Client(dial func(context.Context) (net.Conn, error)) *http.Client {
	t := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		Protocols:   new(http.Protocols),
	}
	t.Protocols.SetUnencryptedHTTP2(true)
	return &http.Client{Transport: t}
}

// URL is asked over a socket.
const URL = "http://orch"

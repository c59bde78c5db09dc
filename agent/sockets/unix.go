package sockets

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
)

// longest is how long a folder's path may be for a socket in it: the kernel takes
// about a hundred bytes.
const longest = 80

// reachable is a path of a socket that is short enough, whatever the folder's.
func reachable(dir, name string) (path string, done func(), err error) {
	if runtime.GOOS != "linux" || len(dir)+len(name) < longest {
		return filepath.Join(dir, name), func() {}, nil
	}
	f, err := os.Open(dir)
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", f.Fd(), name), func() { f.Close() }, nil
}

// ListenUnix makes a socket in a folder that is this process's; one of the same
// name is replaced. Only this user may open it. network is that of net.Listen.
func ListenUnix(network, dir, name string) (net.Listener, error) {
	if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("cannot remove an old socket: %w", err)
	}
	path, done, err := reachable(dir, name)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on the socket: %w", err)
	}
	defer done()
	l, err := net.Listen(network, path)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on the socket: %w", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // its path may be gone by then
	if err := os.Chmod(filepath.Join(dir, name), 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("cannot protect the socket: %w", err)
	}
	return l, nil
}

// DialUnix connects to a socket in a folder.
func DialUnix(ctx context.Context, network, dir, name string) (net.Conn, error) {
	path, done, err := reachable(dir, name)
	if err != nil {
		return nil, err
	}
	defer done()
	return (&net.Dialer{}).DialContext(ctx, network, path)
}

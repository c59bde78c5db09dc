// Package socket is the way to the daemon of this host: a socket in its data
// folder, and the HTTP/2 without TLS that is spoken there.
package socket

import (
	"context"
	"net"
	"net/http"

	"orch/agent/sockets"
)

// Name is that of a daemon's socket in its data folder. Who may open it
// may do everything.
const Name = "orch.sock"

// Listen makes the socket; the folder is this process's.
func Listen(dir string) (net.Listener, error) { return sockets.ListenUnix("unix", dir, Name) }

// Dial connects to the daemon that has the folder.
func Dial(ctx context.Context, dir string) (net.Conn, error) {
	return sockets.DialUnix(ctx, "unix", dir, Name)
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

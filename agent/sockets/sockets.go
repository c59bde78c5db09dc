// Package sockets opens the sockets that a process listens on so that another
// process can go on with them: they are sent to it over a unix socket
// (SCM_RIGHTS, see unix(7)), and what connects meanwhile waits in the same queue.
package sockets

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Set is a process's listening sockets. The nil Set opens sockets that nobody
// can be given. It is safe for concurrent use.
type Set struct {
	mu        sync.Mutex
	inherited map[string]*os.File
	open      map[string]syscall.Conn // closed ones among them
}

func key(network, address string) string { return network + " " + address }

// Listen listens for connections: on the socket of another process, if that has
// given one for the address. early lets the address be bound before this host
// has it.
func (s *Set) Listen(ctx context.Context, network, address string, early bool) (net.Listener, error) {
	var l net.Listener
	var err error
	if f := s.take(network, address); f != nil {
		defer f.Close()
		l, err = net.FileListener(f)
	} else {
		l, err = config(early).Listen(ctx, network, address)
	}
	if err != nil {
		return nil, err
	}
	s.note(network, address, l.Addr(), l.(*net.TCPListener))
	return l, nil
}

// ListenPacket is Listen for datagrams.
func (s *Set) ListenPacket(ctx context.Context, network, address string, early bool) (*net.UDPConn, error) {
	var c net.PacketConn
	var err error
	if f := s.take(network, address); f != nil {
		defer f.Close()
		c, err = net.FilePacketConn(f)
	} else {
		c, err = config(early).ListenPacket(ctx, network, address)
	}
	if err != nil {
		return nil, err
	}
	u := c.(*net.UDPConn)
	s.note(network, address, u.LocalAddr(), u)
	return u, nil
}

func config(early bool) *net.ListenConfig {
	c := &net.ListenConfig{}
	if early {
		c.Control = func(_, _ string, raw syscall.RawConn) error {
			var err error
			if broken := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1) }); broken != nil {
				return broken
			}
			return err
		}
	}
	return c
}

func (s *Set) take(network, address string) *os.File {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.inherited[key(network, address)]
	delete(s.inherited, key(network, address))
	return f
}

func (s *Set) note(network, address string, bound net.Addr, c syscall.Conn) {
	if s == nil {
		return
	}
	if host, port, err := net.SplitHostPort(address); err == nil && port == "0" { // it is asked for by the port that it got
		_, port, _ = net.SplitHostPort(bound.String())
		address = net.JoinHostPort(host, port)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = map[string]syscall.Conn{}
	}
	s.open[key(network, address)] = c
}

// Settle closes what was given and isn't listened on.
func (s *Set) Settle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.inherited {
		f.Close()
	}
	s.inherited = nil
}

// atOnce sockets go with a message: the kernel takes 253.
const atOnce = 100

// mostText is how long a message may be: the keys of its sockets, in JSON.
const mostText = 64 << 10

// Give sends the sockets that are open to another process, and leaves them open
// here.
func (s *Set) Give(to *net.UnixConn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var keys []string
	var fds []int
	send := func() error {
		if len(keys) == 0 {
			return nil
		}
		text, err := json.Marshal(keys)
		if err == nil {
			_, _, err = to.WriteMsgUnix(text, unix.UnixRights(fds...), nil)
		}
		for _, fd := range fds {
			unix.Close(fd)
		}
		keys, fds = nil, nil
		return err
	}
	for _, k := range slices.Sorted(maps.Keys(s.open)) {
		raw, err := s.open[k].SyscallConn()
		var copied error
		if err == nil {
			// Not File().Fd(), which would make the socket block for all who have it.
			err = raw.Control(func(fd uintptr) {
				var n int
				if n, copied = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0); copied == nil {
					keys, fds = append(keys, k), append(fds, n)
				}
			})
		}
		if err = errors.Join(err, copied); err != nil { // it is closed
			delete(s.open, k)
			continue
		}
		if len(keys) == atOnce {
			if err := send(); err != nil {
				return err
			}
		}
	}
	return send()
}

// Take receives what another process gives, until that closes from.
func (s *Set) Take(from *net.UnixConn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inherited == nil {
		s.inherited = map[string]*os.File{}
	}
	text, rights := make([]byte, mostText), make([]byte, unix.CmsgSpace(4*atOnce))
	for {
		n, m, _, _, err := from.ReadMsgUnix(text, rights)
		if n == 0 {
			return nil // the end, which some kernels tell as an error
		}
		if err != nil {
			return err
		}
		if err := s.receive(text[:n], rights[:m]); err != nil {
			return err
		}
	}
}

func (s *Set) receive(text, rights []byte) error {
	var keys []string
	if err := json.Unmarshal(text, &keys); err != nil {
		return fmt.Errorf("what another process gives can't be read: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil {
		return err
	}
	var fds []int
	for _, m := range messages {
		some, err := unix.ParseUnixRights(&m)
		if err != nil {
			return err
		}
		fds = append(fds, some...)
	}
	for i, fd := range fds {
		unix.CloseOnExec(fd)
		f := os.NewFile(uintptr(fd), "inherited")
		if i >= len(keys) || s.inherited[keys[i]] != nil {
			f.Close()
			continue
		}
		s.inherited[keys[i]] = f
	}
	if len(fds) < len(keys) {
		return fmt.Errorf("of %d sockets another process gave %d", len(keys), len(fds))
	}
	return nil
}

package sockets

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// pair gives one set's sockets to another, as two processes would.
func pair(t *testing.T, from, to *Set) {
	t.Helper()
	dir := t.TempDir()
	l, err := ListenUnix("unixpacket", dir, "give")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	given := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			err = from.Give(c.(*net.UnixConn))
			c.Close()
		}
		given <- err
	}()
	c, err := DialUnix(t.Context(), "unixpacket", dir, "give")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := to.Take(c.(*net.UnixConn)); err != nil {
		t.Fatal(err)
	}
	if err := <-given; err != nil {
		t.Fatal(err)
	}
}

// What connected before the first one ends is accepted by the second.
func TestASocketChangesHands(t *testing.T) {
	var one, two Set
	l, err := one.Listen(t.Context(), "tcp", "127.0.0.1:0", false)
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	waiting, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer waiting.Close()
	pair(t, &one, &two)
	next, err := two.Listen(t.Context(), "tcp", address, false)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	l.Close()
	c, err := next.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.RemoteAddr().String() != waiting.LocalAddr().String() {
		t.Errorf("accepted %s, not %s", c.RemoteAddr(), waiting.LocalAddr())
	}
}

// There may be more than a message holds, and some that are closed or not wanted.
func TestManySockets(t *testing.T) {
	var one, two Set
	var addresses []string
	for i := range 2*atOnce + 10 {
		c, err := one.ListenPacket(t.Context(), "udp", "127.0.0.1:0", i%2 == 0)
		if err != nil {
			t.Fatal(err)
		}
		addresses = append(addresses, c.LocalAddr().String())
		if i < 5 {
			c.Close()
		} else {
			t.Cleanup(func() { c.Close() })
		}
	}
	pair(t, &one, &two)
	if len(two.inherited) != len(addresses)-5 {
		t.Fatalf("%d sockets came, of %d", len(two.inherited), len(addresses)-5)
	}
	last := addresses[len(addresses)-1]
	c, err := two.ListenPacket(t.Context(), "udp", last, false) // it is taken, but for those who have it
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	two.Settle()
	if _, err := two.ListenPacket(t.Context(), "udp", addresses[10], false); err == nil {
		t.Error("a socket that was let go is had")
	}
}

func TestNobodyToGiveTo(t *testing.T) {
	var s *Set
	l, err := s.Listen(t.Context(), "tcp", "127.0.0.1:0", true)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

// The kernel takes short paths of sockets only.
func TestALongPath(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 50))
	if _, err := ListenUnix("unix", dir, "s"); err == nil {
		t.Error("a socket in no folder")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for range 2 { // an old one is replaced
		l, err := ListenUnix("unix", dir, "s")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			if c, err := l.Accept(); err == nil {
				fmt.Fprint(c, "hello")
				c.Close()
			}
		}()
		c, err := DialUnix(t.Context(), "unix", dir, "s")
		if err != nil {
			t.Fatal(err)
		}
		if b, _ := io.ReadAll(c); string(b) != "hello" {
			t.Errorf("got %q", b)
		}
		c.Close()
		l.Close()
	}
}

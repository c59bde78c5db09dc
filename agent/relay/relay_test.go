package relay_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"

	"orch/agent/relay"
	"orch/engine/ca"
)

// pair is a server on node "there" and a client on node "here".
type pair struct {
	client *relay.Client
	task   net.Listener
	udp    net.PacketConn // answers each datagram with the same
}

func newPair(t testing.TB) *pair {
	authority, err := ca.New()
	must(t, err)
	wallet := func(id string) *ca.Wallet {
		w, err := authority.Wallet(ca.Subject{Role: ca.Agent, ID: id})
		must(t, err)
		return w
	}
	here, there := wallet("here"), wallet("there")
	p := &pair{}
	p.task, err = net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	p.udp, err = net.ListenPacket("udp", "127.0.0.1:0")
	must(t, err)
	go func() {
		b := make([]byte, 65535)
		for {
			n, from, err := p.udp.ReadFrom(b)
			if err != nil {
				return
			}
			p.udp.WriteTo(b[:n], from)
		}
	}()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	server := &relay.Server{
		TLS: there.PeerServer(), Logger: slog.New(slog.DiscardHandler), Peer: func(s *tls.ConnectionState) string {
			if there.Peer(s) == "here" {
				return "here"
			}
			return ""
		},
		Lookup: func(task string, port uint32) (string, bool) {
			switch {
			case task == "s/web.1#1" && port == 80:
				return p.task.Addr().String(), true
			case task == "s/dns.1#1" && port == 53:
				return p.udp.LocalAddr().String(), true
			case task == "s/gone.1#1":
				return "127.0.0.1:1", true
			}
			return "", false
		},
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(ctx, l) }()
	at := func(node string) (string, bool) { return l.Addr().String(), node != "nowhere" }
	p.client = &relay.Client{TLS: here.PeerClient, Address: at}
	t.Cleanup(func() {
		cancel()
		<-done
		p.client.Close()
		p.task.Close()
		p.udp.Close()
	})
	return p
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// connect opens a connection and accepts it at the task.
func (p *pair) connect(t testing.TB) (here net.Conn, there *net.TCPConn) {
	t.Helper()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, err := p.task.Accept()
		if err == nil {
			accepted <- c
		}
	}()
	here, err := p.client.Connect(t.Context(), "tcp", "there", "s/web.1#1", 80)
	must(t, err)
	return here, (<-accepted).(*net.TCPConn)
}

// Both directions carry all, at the same time, and end each by itself.
func TestBothWays(t *testing.T) {
	p := newPair(t)
	data := make([]byte, 20<<20)
	_, _ = rand.Read(data)
	here, there := p.connect(t)
	var all sync.WaitGroup
	for _, c := range []net.Conn{here, there} {
		all.Go(func() {
			if _, err := io.Copy(c, bytes.NewReader(data)); err != nil {
				t.Error(err)
			}
			if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
				t.Error(err)
			}
		})
		all.Go(func() {
			if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, data) {
				t.Errorf("got %d bytes, %v", len(got), err)
			}
		})
	}
	all.Wait()
	here.Close()
	there.Close()
}

// An answer comes after the question's end, in small pieces, each at once.
func TestHalfClosed(t *testing.T) {
	p := newPair(t)
	here, there := p.connect(t)
	defer here.Close()
	defer there.Close()
	must(t, here.(interface{ CloseWrite() error }).CloseWrite())
	if b, err := io.ReadAll(there); err != nil || len(b) != 0 {
		t.Fatalf("%q, %v", b, err)
	}
	for range 3 {
		_, err := there.Write([]byte("x"))
		must(t, err)
		b := make([]byte, 1)
		_, err = io.ReadFull(here, b)
		must(t, err)
	}
	must(t, there.Close())
	if _, err := here.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

// Who goes away takes the connection along; a task's reset isn't its end.
// A task that says goodbye first is heard, though the other end has not closed.
func TestTaskClosesFirst(t *testing.T) {
	p := newPair(t)
	here, there := p.connect(t)
	defer here.Close()
	_, err := io.WriteString(there, "bye")
	must(t, err)
	must(t, there.CloseWrite())
	if text, err := io.ReadAll(here); string(text) != "bye" || err != nil {
		t.Errorf("heard %q, %v", text, err)
	}
	_, err = io.WriteString(here, "so long") // which it may still hear
	must(t, err)
	must(t, here.(interface{ CloseWrite() error }).CloseWrite())
	if text, err := io.ReadAll(there); string(text) != "so long" || err != nil {
		t.Errorf("there %q, %v", text, err)
	}
}

func TestAborts(t *testing.T) {
	p := newPair(t)
	here, there := p.connect(t)
	must(t, there.SetLinger(0))
	must(t, there.Close())
	if _, err := io.ReadAll(here); err == nil {
		t.Error("a reset looks like an end")
	}
	here.Close()

	here, there = p.connect(t)
	here.Close()
	if b, err := io.ReadAll(there); len(b) > 0 {
		t.Errorf("%q, %v", b, err)
	}
	there.Close()
}

func TestDatagrams(t *testing.T) {
	p := newPair(t)
	c, err := p.client.Connect(t.Context(), "udp", "there", "s/dns.1#1", 53)
	must(t, err)
	defer c.Close()
	for _, size := range []int{1, 1400, 60000, 0, 3} {
		want := bytes.Repeat([]byte{byte(size)}, size)
		_, err := c.Write(want)
		must(t, err)
		got := make([]byte, 65535)
		n, err := c.Read(got)
		if err != nil || !bytes.Equal(got[:n], want) {
			t.Errorf("%d bytes came back of %d, %v", n, size, err)
		}
	}
}

func TestWhatCannotBeReached(t *testing.T) {
	p := newPair(t)
	for _, c := range []struct {
		node, task string
		port       uint32
		want       string
	}{
		{"there", "s/web.1#1", 81, `no task "s/web.1#1" listens on 81 here`},
		{"there", "s/gone.1#1", 80, "connection refused"},
		{"other", "s/web.1#1", 80, `node "other" was to answer, not "there"`},
		{"nowhere", "s/web.1#1", 80, `it is not known where node "nowhere" is reached`},
	} {
		if _, err := p.client.Connect(t.Context(), "tcp", c.node, c.task, c.port); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v", c, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.client.Connect(ctx, "tcp", "there", "s/web.1#1", 80); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end of its context: %v", err)
	}
	// The peer is another node of the cluster, which isn't let in.
	p.client.TLS = func(node string) *tls.Config {
		return &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}
	}
	stranger := &relay.Client{TLS: p.client.TLS, Address: p.client.Address}
	defer stranger.Close()
	if _, err := stranger.Connect(t.Context(), "tcp", "there", "s/web.1#1", 80); err == nil {
		t.Error("a stranger was let in")
	}
}

// BenchmarkConnect opens a connection, and has 100 bytes echoed: by the relay,
// and beside it without one.
func BenchmarkConnect(b *testing.B) {
	p := newPair(b)
	go func() {
		for {
			c, err := p.task.Accept()
			if err != nil {
				return
			}
			go func() { io.Copy(c, c); c.Close() }()
		}
	}()
	for name, connect := range map[string]func() (net.Conn, error){
		"relayed": func() (net.Conn, error) { return p.client.Connect(b.Context(), "tcp", "there", "s/web.1#1", 80) },
		"direct":  func() (net.Conn, error) { return net.Dial("tcp", p.task.Addr().String()) },
	} {
		b.Run(name, func(b *testing.B) {
			buf := make([]byte, 100)
			for b.Loop() {
				c, err := connect()
				must(b, err)
				_, err = c.Write(buf)
				must(b, err)
				_, err = io.ReadFull(c, buf)
				must(b, err)
				c.Close()
			}
		})
	}
}

func BenchmarkThroughput(b *testing.B) {
	p := newPair(b)
	here, there := p.connect(b)
	go io.Copy(io.Discard, there)
	buf := make([]byte, 256<<10)
	b.SetBytes(int64(len(buf)))
	for b.Loop() {
		_, err := here.Write(buf)
		must(b, err)
	}
	here.Close()
	there.Close()
}

package ingress

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"orch/engine/api"
)

// echo answers each connection with its name and what it was sent.
func echo(t *testing.T, name string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				b, _ := io.ReadAll(c)
				io.WriteString(c, name+":"+string(b))
			}()
		}
	}()
	return l.Addr().String()
}

func ask(t *testing.T, address, text string) string {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, text)
	c.(*net.TCPConn).CloseWrite()
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// free is an address that nobody listens on, of a port that nobody is given who
// asks for any.
func free(t testing.TB) string {
	for range 1000 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 10000+(os.Getpid()*37+int(turn.Add(1)))%10000))
		if err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal("no port is free")
	return ""
}

var turn atomic.Int32

func start(t testing.TB) *Publisher {
	p := &Publisher{Logger: slog.New(slog.DiscardHandler)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { p.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return p
}

// dialable publishes and returns once the port answers.
func dialable(t testing.TB, p *Publisher, r *api.Route) {
	t.Helper()
	p.Publish([]*api.Route{r})
	for {
		c, err := net.Dial("tcp", net.JoinHostPort(r.HostIp, strconv.Itoa(int(r.Port))))
		if err == nil {
			c.Close()
			return
		}
		if t.Context().Err() != nil {
			t.Fatal(err)
		}
	}
}

// on is a route at host:port.
func on(address string, targets ...*api.Target) *api.Route {
	at := netip.MustParseAddrPort(address)
	return &api.Route{HostIp: at.Addr().String(), Port: uint32(at.Port()), Targets: targets}
}

// to are targets at addresses.
func to(addresses ...string) []*api.Target {
	var all []*api.Target
	for _, a := range addresses {
		all = append(all, &api.Target{TaskId: a, Address: a})
	}
	return all
}

func TestDeadTargetIsPassedOver(t *testing.T) {
	p, at := start(t), free(t)
	dialable(t, p, on(at, to(free(t), echo(t, "a"))...))
	for range 5 {
		if got := ask(t, at, "x"); got != "a:x" {
			t.Errorf("got %q", got)
		}
	}
}

func TestConnectionIsHeldUntilATaskIsInRotation(t *testing.T) {
	p, at := start(t), free(t)
	dialable(t, p, on(at))
	var wg sync.WaitGroup
	wg.Go(func() {
		if got := ask(t, at, "x"); got != "b:x" {
			t.Errorf("got %q", got)
		}
	})
	p.Publish([]*api.Route{on(at, to(echo(t, "b"))...)})
	wg.Wait()
}

func TestSwitchLosesNoConnection(t *testing.T) {
	p, at := start(t), free(t)
	a, b := echo(t, "a"), echo(t, "b")
	dialable(t, p, on(at, to(a)...))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				if got := ask(t, at, "x"); got != "a:x" && got != "b:x" {
					t.Errorf("got %q", got)
				}
			}
		})
	}
	for range 20 {
		p.Publish([]*api.Route{on(at, to(b)...)})
		p.Publish([]*api.Route{on(at, to(a, b)...)})
	}
	wg.Wait()
	p.Publish(nil)
}

func TestConnectionsToTasksOutOfRotationAreCounted(t *testing.T) {
	p, at := start(t), free(t)
	ended := make(chan struct{}, 8)
	p.Ended = func() { ended <- struct{}{} }
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { io.Copy(c, c); c.Close() }()
		}
	}()
	a := l.Addr().String()
	dialable(t, p, on(at, to(a)...))
	c, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(c, "x")
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	p.Publish([]*api.Route{on(at)})
	p.Publish(nil)
	if got := p.InFlight(map[string]bool{a: true, "b": true}); got[a] == 0 || got["b"] != 0 {
		t.Errorf("got %v", got)
	}
	if got := p.InFlight(map[string]bool{"b": true}); len(got) != 0 {
		t.Errorf("of another: %v", got)
	}
	io.WriteString(c, "y") // it goes on
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	c.Close()
	for p.InFlight(map[string]bool{a: true})[a] > 0 {
		<-ended
	}
}

func TestSuspectsComeLast(t *testing.T) {
	p, at := start(t), free(t)
	a, b := echo(t, "a"), echo(t, "b")
	targets := to(a, b)
	targets[0].Suspect = true
	dialable(t, p, on(at, targets...))
	for range 5 {
		if got := ask(t, at, "x"); got != "b:x" {
			t.Errorf("got %q", got)
		}
	}
	targets = to(a, free(t))
	targets[0].Suspect = true
	p.Publish([]*api.Route{on(at, targets...)})
	if got := ask(t, at, "x"); got != "a:x" {
		t.Errorf("with nothing else: %q", got)
	}
}

func TestProxyProtocol(t *testing.T) {
	p, at := start(t), free(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := make(chan []byte, 8)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b, _ := io.ReadAll(c)
			c.Close()
			if len(b) > 28 { // not of the one that only looks whether the port is open
				got <- b
			}
		}
	}()
	r := on(at, to(l.Addr().String())...)
	r.ProxyProtocol = true
	dialable(t, p, r)
	c, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET")
	c.(*net.TCPConn).CloseWrite()
	from, here := c.LocalAddr().(*net.TCPAddr), c.RemoteAddr().(*net.TCPAddr)
	want := "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x7f\x00\x00\x01\x7f\x00\x00\x01" +
		string([]byte{byte(from.Port >> 8), byte(from.Port), byte(here.Port >> 8), byte(here.Port)}) + "GET"
	if b := <-got; string(b) != want {
		t.Errorf("got %q, want %q", b, want)
	}
}

// A port for tasks of one network lets in nobody else.
func TestOnlySomeAreLetIn(t *testing.T) {
	for _, protocol := range []string{"tcp", "http"} {
		p, at := start(t), free(t)
		r := on(at, to(speaks(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", protocol == "tcp"))...)
		r.Protocol, r.Only = protocol, "127.0.0.0/8"
		dialable(t, p, r)
		if got := talk(t, at, plainLast); !strings.Contains(got, "ok") {
			t.Errorf("%s, let in: %q", protocol, got)
		}
		r.Only = "10.1.0.0/16"
		p.Publish([]*api.Route{r})
		if got := talk(t, at, plainLast); got != "" {
			t.Errorf("%s, not let in: %q", protocol, got)
		}
	}
}

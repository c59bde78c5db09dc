package carrier

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"orch/engine/api"
)

func TestMain(m *testing.M) {
	if Is(os.Args) {
		Main(nobody{})
	}
	os.Exit(m.Run())
}

// nobody is the wallet of one who reaches no other node.
type nobody struct{}

func (nobody) Admit(*api.Admission) error       { return nil }
func (nobody) Server() *tls.Config              { return &tls.Config{} }
func (nobody) Client(string) *tls.Config        { return &tls.Config{} }
func (nobody) Node(*tls.ConnectionState) string { return "" }

// agent is one that has a carrier.
type agent struct {
	*Carrier
	stop func()
}

func begin(t testing.TB, dir string) *agent {
	c := &Carrier{Dir: dir, Changed: func() {}, Ended: func() {}, Logger: slog.New(slog.DiscardHandler)}
	ctx, cancel := context.WithCancel(context.Background())
	up, ended := make(chan struct{}), make(chan struct{})
	go func() { _ = c.Run(ctx, up); close(ended) }()
	<-up
	a := &agent{c, sync.OnceFunc(func() { cancel(); <-ended })}
	t.Cleanup(func() {
		a.stop()
		if err := c.End(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return a
}

func (a *agent) tell(t testing.TB, routes ...*api.Route) {
	t.Helper()
	if err := errors.Join(a.Publish(&api.Published{Routes: routes}), a.Resolve(&api.Names{})); err != nil {
		t.Fatal(err)
	}
}

// free is a port that nothing else is given meanwhile: it is outside the range of
// those that are chosen by the kernel.
func free(t *testing.T) uint32 {
	for range 1000 {
		port := 10000 + rand.IntN(10000)
		if l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port)); err == nil {
			l.Close()
			return uint32(port)
		}
	}
	t.Fatal("no port is free")
	return 0
}

// echoes is a task of tcp: it gives back what it is sent.
func echoes(t *testing.T) *api.Target {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() { // ends with the listener
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); c.Close() }()
		}
	}()
	return &api.Target{TaskId: "echo", Address: l.Addr().String()}
}

// serves is a task of http.
func serves(t *testing.T) *api.Target {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "ok "+r.URL.Path) })}
	t.Cleanup(func() { s.Close() })
	go func() { _ = s.Serve(l) }()
	return &api.Target{TaskId: "web", Address: l.Addr().String()}
}

func route(port uint32, protocol string, to *api.Target) *api.Route {
	return &api.Route{HostIp: "127.0.0.1", Port: port, Protocol: protocol, Service: "s/web", Targets: []*api.Target{to}}
}

func at(port uint32) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// echo is a connection that stays.
type echo struct {
	net.Conn
	in *bufio.Reader
}

func connectTo(t *testing.T, port uint32) *echo {
	t.Helper()
	c, err := net.Dial("tcp", at(port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &echo{c, bufio.NewReader(c)}
}

func (e *echo) says(text string) error {
	if err := e.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(e, text); err != nil {
		return err
	}
	got, err := e.in.ReadString('\n')
	if err == nil && got != text+"\n" {
		err = fmt.Errorf("got %q", got)
	}
	return err
}

func alive(pid int) bool { return unix.Kill(pid, 0) == nil }

// eventually waits for what happens in another process.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for tick := time.NewTicker(5 * time.Millisecond); !is(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal(what)
		}
	}
}

// The agent's end and its successor's start are not seen by anybody.
func TestItOutlivesItsAgent(t *testing.T) {
	dir, port := t.TempDir(), free(t)
	one := begin(t, dir)
	one.tell(t, route(port, "tcp", echoes(t)))
	pid := one.active().pid
	kept := connectTo(t, port)
	if err := kept.says("before"); err != nil {
		t.Fatal(err)
	}
	one.stop()
	if err := errors.Join(kept.says("alone"), connectTo(t, port).says("another")); err != nil {
		t.Error(err)
	}
	two := begin(t, dir)
	eventually(t, "no connection is told", func() bool { return two.InFlight(map[string]bool{"echo": true})["echo"] == 2 })
	if got := two.active(); got == nil || got.pid != pid {
		t.Errorf("another one: %v, not %d", got, pid)
	}
	two.tell(t, route(port, "tcp", echoes(t)), route(free(t), "udp", &api.Target{TaskId: "dns", Address: "127.0.0.1:9"}))
	if err := kept.says("after"); err != nil {
		t.Error(err)
	}
}

// A successor gets the sockets, the one before ends with its last connection,
// and nothing is lost between.
func TestItIsReplacedUnderLoad(t *testing.T) {
	dir := t.TempDir()
	a := begin(t, dir)
	tcp, web := free(t), free(t)
	a.tell(t, route(tcp, "tcp", echoes(t)), route(web, "http", serves(t)))
	kept := connectTo(t, tcp)
	var work sync.WaitGroup
	var done atomic.Bool
	var asked atomic.Int64
	load := func(ask func() error) {
		work.Go(func() {
			for !done.Load() {
				if err := ask(); err != nil {
					t.Error(err)
					return
				}
				asked.Add(1)
			}
		})
	}
	get := func(c *http.Client) error {
		r, err := c.Get("http://" + at(web) + "/x")
		if err != nil {
			return err
		}
		defer r.Body.Close()
		if b, err := io.ReadAll(r.Body); err != nil || string(b) != "ok /x" {
			return fmt.Errorf("%d %q %w", r.StatusCode, b, err)
		}
		return nil
	}
	var clients []*http.Transport
	for range 2 {
		// A transport asks again by itself where a kept connection fails: one that posts doesn't.
		stays, single := &http.Transport{}, &http.Transport{DisableKeepAlives: true}
		clients = append(clients, stays)
		load(func() error { return get(&http.Client{Transport: stays}) })
		load(func() error { return get(&http.Client{Transport: single}) })
		load(func() error {
			r, err := (&http.Client{Transport: stays}).Post("http://"+at(web)+"/x", "text/plain", io.MultiReader())
			if err == nil {
				r.Body.Close()
			}
			return err
		})
		load(func() error {
			c, err := net.Dial("tcp", at(tcp))
			if err != nil {
				return err
			}
			defer c.Close()
			return (&echo{c, bufio.NewReader(c)}).says("hello")
		})
	}
	var before []int
	for range 5 {
		enough := asked.Load() + 200
		eventually(t, "no load", func() bool { return asked.Load() > enough })
		if err := kept.says("still"); err != nil {
			t.Fatal(err)
		}
		p := a.active()
		before = append(before, p.pid)
		a.change.Lock()
		err := a.start(a.running(), p)
		a.change.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		if err := kept.says("through the first one"); err != nil {
			t.Fatal(err)
		}
	}
	done.Store(true)
	work.Wait()
	for _, c := range clients { // they may have opened some that they never used
		c.CloseIdleConnections()
	}
	t.Logf("%d asked", asked.Load())
	for _, pid := range before[1:] {
		eventually(t, "one that nobody is connected to goes on", func() bool { return !alive(pid) })
	}
	if !alive(before[0]) {
		t.Error("the first one has ended though somebody is connected")
	}
	if n := a.InFlight(map[string]bool{"echo": true})["echo"]; n != 1 {
		t.Errorf("%d connections, want the one to the first", n)
	}
	kept.Close()
	eventually(t, "the first one goes on", func() bool { return !alive(before[0]) })
}

// One that is killed is replaced, and knows what was published.
func TestItIsKilled(t *testing.T) {
	a := begin(t, t.TempDir())
	port := free(t)
	a.tell(t, route(port, "tcp", echoes(t)))
	for range 2 {
		pid := a.active().pid
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, "nothing listens", func() bool {
			c, err := net.Dial("tcp", at(port))
			if err != nil {
				return false
			}
			defer c.Close()
			return (&echo{c, bufio.NewReader(c)}).says("hello") == nil
		})
		eventually(t, "nobody knows it", func() bool { p := a.active(); return p != nil && p.pid != pid })
	}
}

// What is in flight in one that hangs isn't known, so that nothing is stopped.
func TestItHangs(t *testing.T) {
	a := begin(t, t.TempDir())
	a.tell(t, route(free(t), "tcp", echoes(t)))
	pid := a.active().pid
	if n := a.InFlight(map[string]bool{"echo": true})["echo"]; n != 0 {
		t.Errorf("%d in flight", n)
	}
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	n := a.InFlight(map[string]bool{"echo": true})["echo"]
	if err := unix.Kill(pid, unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if n != 1 {
		t.Errorf("%d in flight in one that hangs", n)
	}
	eventually(t, "it is unknown for ever", func() bool { return a.InFlight(map[string]bool{"echo": true})["echo"] == 0 })
}

// Without its folder nobody could reach it: it ends.
func TestItsFolderGoes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "carrier")
	a := begin(t, dir)
	a.tell(t, route(free(t), "tcp", echoes(t)))
	pid := a.active().pid
	a.stop()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it goes on", func() bool { return !alive(pid) })
}

// Nothing is started where there is nothing to carry.
func TestNothingToCarry(t *testing.T) {
	a := begin(t, t.TempDir())
	a.tell(t)
	if p := a.active(); p != nil {
		t.Errorf("process %d", p.pid)
	}
}

// What it has to say is the agent's to log.
func TestItsLog(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	a := begin(t, t.TempDir())
	said := make(lines, 10)
	a.Logger = slog.New(slog.NewTextHandler(said, nil))
	a.tell(t, route(uint32(taken.Addr().(*net.TCPAddr).Port), "tcp", echoes(t)))
	if got := <-said; !contains(got, "cannot publish a port", "address="+taken.Addr().String(), "level=ERROR") {
		t.Errorf("said %q", got)
	}
	eventually(t, "it isn't told which port is closed", func() bool {
		c := a.ClosedPorts()
		return len(c) == 1 && c[0].Port == uint32(taken.Addr().(*net.TCPAddr).Port) && c[0].Why == "address already in use"
	})
	a.tell(t)
	eventually(t, "it is told for ever", func() bool { return len(a.ClosedPorts()) == 0 })
}

type lines chan string

func (l lines) Write(b []byte) (int, error) { l <- string(b); return len(b), nil }

func contains(text string, parts ...string) bool {
	for _, p := range parts {
		if !strings.Contains(text, p) {
			return false
		}
	}
	return true
}

package virtual

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"orch/engine/api"
)

// namespace makes one with a loopback link that has some addresses, and gives its
// path. listen opens a port in it, dial connects from it.
type namespace struct {
	path string
	run  chan func()
}

func newNamespace(t testing.TB, addresses ...string) *namespace {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("this takes root")
		}
		t.Skip("this takes root")
	}
	n := &namespace{run: make(chan func())}
	made := make(chan error)
	go func() { // its thread is the namespace's, and ends with it
		runtime.LockOSThread()
		ns, err := netns.New()
		if err == nil {
			defer ns.Close()
			n.path = fmt.Sprintf("/proc/self/fd/%d", int(ns))
			var lo netlink.Link
			if lo, err = netlink.LinkByName("lo"); err == nil {
				err = netlink.LinkSetUp(lo)
			}
			for _, a := range addresses {
				if err == nil {
					err = netlink.AddrAdd(lo, &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(a), Mask: net.CIDRMask(24, 32)}})
				}
			}
		}
		made <- err
		for f := range n.run {
			f()
		}
	}()
	if err := <-made; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { close(n.run) })
	return n
}

func (n *namespace) do(f func()) {
	done := make(chan struct{})
	n.run <- func() { f(); close(done) }
	<-done
}

// says listens on an address, and tells everybody who comes what it is called.
func (n *namespace) says(t *testing.T, address, text string) {
	var l net.Listener
	var err error
	n.do(func() { l, err = net.Listen("tcp4", address) })
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
			_, _ = io.WriteString(c, text)
			c.Close()
		}
	}()
}

// asks is what an address says, or why it says nothing.
func (n *namespace) asks(address string) (text string) {
	n.do(func() {
		c, err := net.Dial("tcp4", address)
		if err != nil {
			text = err.Error()
			return
		}
		defer c.Close()
		b, _ := io.ReadAll(c)
		text = string(b)
	})
	return text
}

func TestVirtualAddresses(t *testing.T) {
	n := newNamespace(t, "10.1.0.11", "10.1.0.12", "10.1.0.1")
	n.says(t, "10.1.0.11:80", "one")
	n.says(t, "10.1.0.12:80", "two")
	n.says(t, "10.1.0.1:20001", "native")
	a := &Addresses{Logger: slog.New(slog.DiscardHandler)}
	set := func(virtuals ...*api.Virtual) {
		t.Helper()
		if settled, _ := a.Virtual([]*api.Namespace{{Task: "s/web.1#1", Path: n.path, Virtuals: virtuals}}); !settled["s/web.1#1"] {
			t.Fatal("it is not settled")
		}
	}
	both := func() map[string]int {
		seen := map[string]int{}
		for range 20 {
			seen[n.asks("10.1.0.2:80")]++
		}
		return seen
	}
	set(&api.Virtual{Address: "10.1.0.2", Targets: []string{"10.1.0.11", "10.1.0.12"}}, &api.Virtual{Address: "10.1.0.3"},
		&api.Virtual{Address: "10.1.0.4", Ports: []*api.VirtualPort{{Port: 5432, Host: "10.1.0.1", To: 20001}}})
	if seen := both(); seen["one"] != 10 || seen["two"] != 10 {
		t.Errorf("by turns: %v", seen)
	}
	if got := n.asks("10.1.0.3:80"); got != "dial tcp4 10.1.0.3:80: connect: connection refused" {
		t.Errorf("without a task: %s", got)
	}
	if got := n.asks("10.1.0.4:5432"); got != "native" {
		t.Errorf("through the host: %s", got)
	}
	for range 5 { // rules are replaced, not heaped up
		set(&api.Virtual{Address: "10.1.0.2", Targets: []string{"10.1.0.12"}})
		if seen := both(); seen["two"] != 20 {
			t.Errorf("one is left: %v", seen)
		}
		set(&api.Virtual{Address: "10.1.0.2", Targets: []string{"10.1.0.11", "10.1.0.12"}})
		if seen := both(); seen["one"] != 10 || seen["two"] != 10 {
			t.Errorf("both again: %v", seen)
		}
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own := fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()) // the first thread may be the namespace's
	if settled, _ := a.Virtual([]*api.Namespace{{Task: "host", Path: own, Virtuals: []*api.Virtual{{Address: "10.1.0.2"}}}}); len(settled) > 0 {
		t.Errorf("the host's own: %v", settled)
	}
	if settled, _ := a.Virtual([]*api.Namespace{{Task: "gone", Path: "/proc/0/ns/net"}}); len(settled) > 0 {
		t.Errorf("one that ended: %v", settled)
	}
}

// BenchmarkVirtual is a change of one service's tasks, in one namespace with
// ten services.
func BenchmarkVirtual(b *testing.B) {
	n := newNamespace(b)
	a := &Addresses{Logger: slog.New(slog.DiscardHandler)}
	turn := 0
	for b.Loop() {
		turn++
		var all []*api.Virtual
		for i := range 10 {
			all = append(all, &api.Virtual{Address: fmt.Sprint("10.1.0.", 2+i), Targets: []string{fmt.Sprint("10.1.1.", turn%200+1), "10.1.2.1", "10.1.2.2"}})
		}
		if settled, _ := a.Virtual([]*api.Namespace{{Task: "t", Path: n.path, Virtuals: all}}); len(settled) != 1 {
			b.Fatal("it is not settled")
		}
	}
}

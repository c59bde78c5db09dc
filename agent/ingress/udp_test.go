package ingress

import (
	"fmt"
	"net"
	"testing"
	"time"

	"orch/engine/api"
)

// namesEach answers each datagram with its name and what it was sent, unless
// that is "quiet".
func namesEach(t *testing.T, name string) *api.Target {
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		b := make([]byte, mostDatagram)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			if string(b[:n]) != "quiet" {
				fmt.Fprintf(writerTo{c, from}, "%s:%s", name, b[:n])
			}
		}
	}()
	return &api.Target{TaskId: name, Address: c.LocalAddr().String(), Udp: true}
}

type writerTo struct {
	net.PacketConn
	to net.Addr
}

func (w writerTo) Write(b []byte) (int, error) { return w.WriteTo(b, w.to) }

func onUDP(address string, targets ...*api.Target) *api.Route {
	r := on(address, targets...)
	r.Protocol = "udp"
	return r
}

// question asks until an answer comes: datagrams may be lost, and the port may
// not be open yet.
func question(t *testing.T, c net.Conn, text string) string {
	t.Helper()
	b := make([]byte, mostDatagram)
	for t.Context().Err() == nil {
		if _, err := c.Write([]byte(text)); err != nil {
			continue // refused: not yet
		}
		if err := c.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Read(b); err == nil {
			return string(b[:n])
		}
	}
	t.Fatal("no answer")
	return ""
}

func TestDatagramsOfAClientGoToOneTask(t *testing.T) {
	p, at := start(t), free(t)
	a, b := namesEach(t, "a"), namesEach(t, "b")
	p.Publish([]*api.Route{onUDP(at, a, b)})
	seen := map[string]int{}
	for range 8 {
		c, err := net.Dial("udp", at)
		if err != nil {
			t.Fatal(err)
		}
		first := question(t, c, "x")[:1]
		for i := range 3 {
			if got := question(t, c, fmt.Sprint(i)); got[:1] != first {
				t.Errorf("first %s, then %s", first, got)
			}
		}
		seen[first]++
		c.Close()
	}
	if seen["a"] == 0 || seen["b"] == 0 {
		t.Errorf("they got %v", seen)
	}
}

// Once a task has left the rotation its clients go to another one; what it was
// asked before counts until it is answered, or a moment later.
func TestFlowsMove(t *testing.T) {
	p, at := start(t), free(t)
	a, b := namesEach(t, "a"), namesEach(t, "b")
	p.Publish([]*api.Route{onUDP(at, a)})
	c, err := net.Dial("udp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := question(t, c, "1"); got != "a:1" {
		t.Errorf("got %q", got)
	}
	if n := p.InFlight(map[string]bool{"a": true}); len(n) != 0 {
		t.Errorf("in flight after an answer: %v", n)
	}
	p.Publish([]*api.Route{onUDP(at, b)})
	if got := question(t, c, "2"); got != "b:2" {
		t.Errorf("got %q", got)
	}
	f := flow{target: a}
	f.note(true)
	all := flows{{}: &f}
	if n := all.unanswered(); n["a"] != 1 {
		t.Errorf("unanswered: %v", n)
	}
	f.asked = f.asked.Add(-answerWithin)
	if n := all.unanswered(); len(n) != 0 {
		t.Errorf("long unanswered: %v", n)
	}
}

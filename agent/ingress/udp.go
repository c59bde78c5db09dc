package ingress

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"orch/engine/api"
)

// Datagrams of one client's address go to one task as long as that is in
// rotation, and what it answers goes back. Those that come while no task is
// ready are dropped, as a network would.

const (
	// flowIdle is how long a flow is remembered without a datagram.
	flowIdle = time.Minute
	// mostFlows a port; a client more is not served.
	mostFlows = 16384
	// answerWithin a question by a datagram is taken to be answered.
	answerWithin = time.Second
	mostDatagram = 65535
)

// flow is one client's datagrams.
type flow struct {
	target *api.Target
	conn   net.Conn

	mu    sync.Mutex
	asked time.Time // the newest datagram that isn't answered; zero: none
	last  time.Time // newest datagram of either side
}

func (w *flow) note(asked bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last = time.Now()
	if w.asked = (time.Time{}); asked {
		w.asked = w.last
	}
}

// flows are those of a port, by client. Its mutex is the front's.
type flows map[netip.AddrPort]*flow

// unanswered counts the questions under way, by task.
func (all flows) unanswered() map[string]uint32 {
	counts := map[string]uint32{}
	for _, w := range all {
		w.mu.Lock()
		if !w.asked.IsZero() && time.Since(w.asked) < answerWithin {
			counts[w.target.TaskId]++
		}
		w.mu.Unlock()
	}
	return counts
}

// serveUDP serves until ctx ends, or the port can't be had; it calls up when it
// listens.
func (f *front) serveUDP(ctx context.Context, up func()) error {
	in, err := f.sockets.ListenPacket(ctx, "udp", f.address, f.inside)
	if err != nil {
		return err
	}
	up()
	var work sync.WaitGroup
	defer work.Wait()
	defer in.Close()
	listening := ctx
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(listening, func() { _ = in.SetReadDeadline(time.Unix(1, 0)) })()
	buf := make([]byte, mostDatagram)
	for {
		n, from, err := in.ReadFromUDPAddrPort(buf)
		if err != nil {
			if listening.Err() == nil {
				return err
			}
			if f.lame.Load() { // what was asked is answered yet
				pause(ctx, answerWithin)
			}
			return nil
		}
		if !f.letsIn(from.Addr()) {
			continue
		}
		w := f.flowOf(ctx, from)
		if w == nil {
			if w = f.newFlow(ctx, from); w == nil {
				continue
			}
			work.Go(func() { f.answers(ctx, in, from, w) })
		}
		w.note(true)
		_, _ = w.conn.Write(buf[:n]) // lost, as any datagram may be
	}
}

// flowOf is the client's flow, if its task is still in rotation.
func (f *front) flowOf(ctx context.Context, from netip.AddrPort) *flow {
	f.mu.Lock()
	defer f.mu.Unlock()
	w := f.flows[from]
	if w == nil || ctx.Err() != nil || !slices.ContainsFunc(f.targets, func(t *api.Target) bool { return t.TaskId == w.target.TaskId }) {
		return nil
	}
	return w
}

// newFlow gives the client a task; nil: there is none. A flow that it had
// goes on bringing answers until it is idle.
func (f *front) newFlow(ctx context.Context, from netip.AddrPort) *flow {
	tried := tries{}
	for {
		target := f.pick(tried)
		if target == nil {
			return nil
		}
		tried[target.TaskId] = true
		conn, err := f.reach(ctx, target)
		if err != nil {
			f.release(target)
			continue
		}
		f.release(target) // flows don't count as connections: they have no end
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.flows == nil {
			f.flows = flows{}
		}
		if len(f.flows) >= mostFlows || ctx.Err() != nil {
			conn.Close()
			return nil
		}
		w := &flow{target: target, conn: conn}
		w.note(true)
		f.flows[from] = w
		return w
	}
}

// answers brings a task's datagrams back until the flow is idle.
func (f *front) answers(ctx context.Context, in *net.UDPConn, to netip.AddrPort, w *flow) {
	defer context.AfterFunc(ctx, func() { w.conn.Close() })()
	idle := time.AfterFunc(flowIdle, w.expire)
	defer idle.Stop()
	buf := make([]byte, mostDatagram)
	for {
		n, err := w.conn.Read(buf)
		if err != nil {
			break
		}
		w.note(false)
		if _, err := in.WriteToUDPAddrPort(buf[:n], to); err != nil {
			break
		}
	}
	w.conn.Close()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.flows[to] == w {
		delete(f.flows, to)
	}
}

// expire closes a flow that is idle, or looks again when it might be.
func (w *flow) expire() {
	w.mu.Lock()
	left := flowIdle - time.Since(w.last)
	w.mu.Unlock()
	if left <= 0 {
		w.conn.Close()
		return
	}
	time.AfterFunc(left, w.expire)
}

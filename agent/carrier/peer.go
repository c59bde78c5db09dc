package carrier

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"

	"orch/agent/sockets"
	"orch/engine/api"
	"orch/engine/api/apiconnect"
)

// peer is a carrier as the agent talks to it.
type peer struct {
	dir     string
	number  int
	pid     int
	retired atomic.Bool
	since   time.Time // known
	asks    apiconnect.CarrierServiceClient
	http    *http.Transport

	// What it was told; Carrier.change guards it.
	published *api.Published
	names     *api.Names
}

// dial makes a peer; nothing is sent yet.
func dial(dir string, number int) *peer {
	p := &peer{dir: dir, number: number, since: time.Now()}
	p.http = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return sockets.DialUnix(ctx, "unix", dir, asked(number))
	}}
	p.asks = apiconnect.NewCarrierServiceClient(&http.Client{Transport: p.http}, url)
	return p
}

func (p *peer) close() { p.http.CloseIdleConnections() }

func (p *peer) hello(ctx context.Context) (*api.HelloResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	r, err := p.asks.Hello(ctx, connect.NewRequest(&api.HelloRequest{}))
	if err != nil {
		return nil, err
	}
	return r.Msg, nil
}

// same says that it is the program that this process is: an upgrade puts another
// file in its place.
func (p *peer) same() bool {
	own, err := os.Stat("/proc/self/exe")
	if err != nil {
		return true
	}
	its, err := os.Stat(fmt.Sprintf("/proc/%d/exe", p.pid))
	return err != nil || os.SameFile(own, its)
}

func (p *peer) admit(ctx context.Context, a *api.Admission) (port uint32, err error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	r, err := p.asks.Admit(ctx, connect.NewRequest(a))
	if err != nil {
		return 0, err
	}
	return r.Msg.Port, nil
}

// publish tells it what is published, if it doesn't know; Carrier.change is held.
func (p *peer) publish(ctx context.Context, all *api.Published) error {
	if all == nil || p.published == all {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	_, err := p.asks.Publish(ctx, connect.NewRequest(changes(p.published, all)))
	p.published = all
	if err != nil { // it isn't known what it knows
		p.published = nil
	}
	return err
}

// resolve tells it the names, if it doesn't know; Carrier.change is held.
func (p *peer) resolve(ctx context.Context, n *api.Names) error {
	if n == nil || p.names == n {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	_, err := p.asks.Resolve(ctx, connect.NewRequest(n))
	if err == nil {
		p.names = n
	}
	return err
}

// countWithin a carrier counts: the session with the engine waits for it.
const countWithin = 300 * time.Millisecond

// inFlight is what it says. One that doesn't answer in time may have something
// (sure is false); one that is gone has nothing.
func (p *peer) inFlight(ctx context.Context, tasks []string) (counts map[string]uint32, sure bool) {
	ctx, cancel := context.WithTimeout(ctx, countWithin)
	defer cancel()
	r, err := p.asks.InFlight(ctx, connect.NewRequest(&api.InFlightRequest{Tasks: tasks}))
	if err != nil {
		return nil, ctx.Err() == nil
	}
	return r.Msg.Tasks, true
}

func (p *peer) watch(ctx context.Context, take func(*api.CarrierEvent)) error {
	s, err := p.asks.Watch(ctx, connect.NewRequest(&api.WatchRequest{}))
	if err != nil {
		return err
	}
	defer s.Close()
	for s.Receive() {
		take(s.Msg())
	}
	return s.Err()
}

// retire has it listen no longer.
func (p *peer) retire(ctx context.Context) {
	p.retired.Store(true)
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	_, _ = p.asks.Retire(ctx, connect.NewRequest(&api.RetireRequest{})) // one that is gone needs no telling
}

// endLook is how often it is looked whether a carrier has ended.
const endLook = 10 * time.Millisecond

// end ends it, and returns once it is gone.
func (p *peer) end(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	_, _ = p.asks.End(ctx, connect.NewRequest(&api.EndRequest{})) // it may end before it answers
	for tick := time.NewTicker(endLook); ; {
		c, err := sockets.DialUnix(ctx, "unix", p.dir, asked(p.number))
		if err != nil && ctx.Err() == nil {
			tick.Stop()
			return nil
		}
		if err == nil {
			c.Close()
		}
		select {
		case <-ctx.Done():
			tick.Stop()
			return fmt.Errorf("carrier %d doesn't end: %w", p.number, ctx.Err())
		case <-tick.C:
		}
	}
}

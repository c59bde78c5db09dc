package ingress

import (
	"context"
	"net"
	"sync"
	"time"

	"orch/engine/api"
)

func (f *front) serve(ctx context.Context, client net.Conn) {
	defer client.Close()
	stop := context.AfterFunc(ctx, func() { client.Close() })
	defer stop()
	target, server := f.connect(ctx)
	if server == nil {
		return
	}
	defer f.release(target)
	defer server.Close() // before it counts as ended
	stopServer := context.AfterFunc(ctx, func() { server.Close() })
	defer stopServer()
	f.mu.Lock()
	proxied := f.proxied
	f.mu.Unlock()
	if proxied {
		if _, err := server.Write(proxyHeader(client)); err != nil {
			return
		}
	}
	splice(client, server)
}

// connect finds a task that answers, holding the connection while none is in
// rotation.
func (f *front) connect(ctx context.Context) (*api.Target, net.Conn) {
	ctx, cancel := context.WithTimeout(ctx, hold)
	defer cancel()
	tried := tries{}
	for {
		target := f.next(ctx, tried)
		if target == nil {
			return nil, nil
		}
		began := time.Now()
		c, err := f.reach(ctx, target)
		f.count(target, began, err != nil && ctx.Err() == nil)
		if err == nil {
			return target, c
		}
		f.release(target)
		tried[target.TaskId] = false
	}
}

// splice copies both ways; the end of one direction is passed on, so that
// half-closed connections work.
func splice(a, b net.Conn) {
	var both sync.WaitGroup
	oneWay := func(to, from net.Conn) {
		if err := pour(to, from); err != nil {
			to.Close()
			from.Close()
			return
		}
		if half, ok := to.(interface{ CloseWrite() error }); ok {
			half.CloseWrite()
		}
	}
	both.Go(func() { oneWay(a, b) })
	oneWay(b, a)
	both.Wait()
}

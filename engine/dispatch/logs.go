package dispatch

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"

	"connectrpc.com/connect"

	"orch/engine/api"
	"orch/engine/ca"
)

// subscriptions are the log streams under way.
type subscriptions struct {
	mu  sync.Mutex
	all map[string]*subscription
}

type subscription struct {
	lines chan *api.LogBatch
	done  <-chan struct{}
}

// Logs asks the nodes for their tasks' lines and passes them to emit until
// every node has said its last, ctx ends, or emit fails. A node without a
// session is told of in a batch with an error.
func (d *Dispatcher) Logs(ctx context.Context, byNode map[string][]string, ask *api.LogRequest, emit func(*api.LogBatch) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	sub := &subscription{lines: make(chan *api.LogBatch, 64), done: ctx.Done()}
	id := rand.Text()
	d.logs.mu.Lock()
	if d.logs.all == nil {
		d.logs.all = map[string]*subscription{}
	}
	d.logs.all[id] = sub
	d.logs.mu.Unlock()
	defer d.forget(id, byNode)

	waiting := 0
	for node, tasks := range byNode {
		request := &api.LogRequest{Subscription: id, TaskIds: tasks, Follow: ask.Follow, Tail: ask.Tail, Since: ask.Since}
		if d.queue(node, &api.EngineMessage{Kind: &api.EngineMessage_Logs{Logs: request}}) {
			waiting++
		} else if err := emit(&api.LogBatch{Error: fmt.Sprintf("node %s isn't connected: the logs of %d of its tasks are missing", d.name(node), len(tasks))}); err != nil {
			return err
		}
	}
	for waiting > 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case b := <-sub.lines:
			if b.End {
				waiting--
			}
			if err := emit(b); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *Dispatcher) name(node string) string {
	if n := d.Store.View().Node(node); n != nil {
		return n.Name
	}
	return node
}

func (d *Dispatcher) queue(node string, m *api.EngineMessage) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.sessions[node]
	if s == nil {
		return false
	}
	s.queue = append(s.queue, m)
	s.poke()
	return true
}

func (d *Dispatcher) forget(id string, byNode map[string][]string) {
	d.logs.mu.Lock()
	delete(d.logs.all, id)
	d.logs.mu.Unlock()
	for node := range byNode {
		d.queue(node, &api.EngineMessage{Kind: &api.EngineMessage_LogCancel{LogCancel: &api.LogCancel{Subscription: id}}})
	}
}

// PublishLogs implements api.AgentService. Lines nobody waits for any more
// end the stream.
func (d *Dispatcher) PublishLogs(ctx context.Context, stream *connect.ClientStream[api.LogBatch]) (*connect.Response[api.PublishLogsResponse], error) {
	if ca.From(ctx).Role != ca.Agent {
		return nil, connect.NewError(connect.CodePermissionDenied, errors.New("only agents publish logs"))
	}
	var sub *subscription
	defer func() {
		// An agent that goes in the middle still ends its part.
		if sub != nil {
			select {
			case sub.lines <- &api.LogBatch{End: true}:
			case <-sub.done:
			}
		}
	}()
	for stream.Receive() {
		b := stream.Msg()
		if sub == nil {
			d.logs.mu.Lock()
			sub = d.logs.all[b.Subscription]
			d.logs.mu.Unlock()
		}
		if sub == nil {
			return nil, connect.NewError(connect.CodeNotFound, errors.New("nobody waits for these logs"))
		}
		if b.End {
			break // said once, by the defer
		}
		select {
		case sub.lines <- &api.LogBatch{Lines: b.Lines, Error: b.Error}:
		case <-sub.done:
			return connect.NewResponse(&api.PublishLogsResponse{}), nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return connect.NewResponse(&api.PublishLogsResponse{}), stream.Err()
}

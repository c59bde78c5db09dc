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
	lines chan part
	done  <-chan struct{}
}

// part is what one node has to say.
type part struct {
	node  string
	batch *api.LogBatch
}

// Logs asks the nodes for their tasks' lines and passes them to emit until
// every node has said its last, ctx ends, or emit fails. A node without a
// session is told of in a batch with an error.
func (d *Dispatcher) Logs(ctx context.Context, byNode map[string][]string, ask *api.LogRequest, emit func(*api.LogBatch) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	sub := &subscription{lines: make(chan part, 64), done: ctx.Done()}
	id := rand.Text()
	d.logs.mu.Lock()
	if d.logs.all == nil {
		d.logs.all = map[string]*subscription{}
	}
	d.logs.all[id] = sub
	d.logs.mu.Unlock()
	defer d.forget(id, byNode)

	waiting := map[string]bool{}
	gone := make(chan string)
	var watches sync.WaitGroup
	defer watches.Wait()
	defer cancel()
	for node, tasks := range byNode {
		request := &api.LogRequest{Subscription: id, TaskIds: tasks, Follow: ask.Follow, Tail: ask.Tail, Since: ask.Since}
		s := d.queue(node, &api.EngineMessage{Kind: &api.EngineMessage_Logs{Logs: request}})
		if s == nil {
			if err := emit(&api.LogBatch{Error: fmt.Sprintf("node %s isn't connected: the logs of %d of its tasks are missing", d.name(node), len(tasks))}); err != nil {
				return err
			}
			continue
		}
		waiting[node] = true
		watches.Go(func() {
			select {
			case <-ctx.Done():
				return
			case <-s.closed:
			}
			select {
			case <-ctx.Done():
			case gone <- node:
			}
		})
	}
	for len(waiting) > 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case node := <-gone:
			if !waiting[node] {
				continue
			}
			delete(waiting, node)
			if err := emit(&api.LogBatch{Error: fmt.Sprintf("node %s went away: there may be more in its logs", d.name(node))}); err != nil {
				return err
			}
		case p := <-sub.lines:
			if p.batch.End {
				delete(waiting, p.node)
			}
			if err := emit(p.batch); err != nil {
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

// queue has m sent to the node; nil if it has no session.
func (d *Dispatcher) queue(node string, m *api.EngineMessage) *session {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.sessions[node]
	if s != nil {
		s.queue = append(s.queue, m)
		s.poke()
	}
	return s
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
	who := ca.From(ctx)
	var sub *subscription
	defer func() {
		// An agent that goes in the middle still ends its part.
		if sub != nil {
			select {
			case sub.lines <- part{who.ID, &api.LogBatch{End: true}}:
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
		case sub.lines <- part{who.ID, &api.LogBatch{Lines: b.Lines, Error: b.Error}}:
		case <-sub.done:
			return connect.NewResponse(&api.PublishLogsResponse{}), nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return connect.NewResponse(&api.PublishLogsResponse{}), stream.Err()
}

package dispatch

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"

	"orch/engine/api"
)

// asks are the questions to nodes that somebody waits for.
type asks struct {
	mu  sync.Mutex
	all map[string]asked // by id
}

type asked struct {
	node   string
	answer chan *api.Answer // has room for the only one
}

// Ask puts a question to a node, by its id, and waits for the answer until ctx
// ends. The question's own id is chosen here.
func (d *Dispatcher) Ask(ctx context.Context, node string, ask *api.Ask) (*api.Answer, error) {
	ask.Id = rand.Text()
	answer := make(chan *api.Answer, 1)
	d.asks.mu.Lock()
	if d.asks.all == nil {
		d.asks.all = map[string]asked{}
	}
	d.asks.all[ask.Id] = asked{node, answer}
	d.asks.mu.Unlock()
	defer func() {
		d.asks.mu.Lock()
		defer d.asks.mu.Unlock()
		delete(d.asks.all, ask.Id)
	}()
	s := d.queue(node, &api.EngineMessage{Kind: &api.EngineMessage_Ask{Ask: ask}})
	if s == nil {
		return nil, fmt.Errorf("node %s is not connected", d.name(node))
	}
	select {
	case a := <-answer:
		if a.Error != "" {
			return nil, fmt.Errorf("node %s: %w", d.name(node), errors.New(a.Error))
		}
		return a, nil
	case <-s.closed:
		return nil, fmt.Errorf("node %s is not connected any more", d.name(node))
	case <-ctx.Done():
		return nil, fmt.Errorf("node %s did not answer: %w", d.name(node), ctx.Err())
	}
}

// take takes what a node answers, if it was asked.
func (q *asks) take(node string, a *api.Answer) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if of, known := q.all[a.GetId()]; known && of.node == node {
		delete(q.all, a.Id)
		of.answer <- a
	}
}

package dispatch

import (
	"context"
	"errors"
	"fmt"

	"orch/engine/api"
)

// Ask puts a question to a node, by its id, and waits for the answer until ctx
// ends. The question's own id is chosen here.
func (d *Dispatcher) Ask(ctx context.Context, node string, ask *api.Ask) (*api.Answer, error) {
	id, answer := d.asks.begin(node)
	defer d.asks.forget(id)
	ask.Id = id
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

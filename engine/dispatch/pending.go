package dispatch

import (
	"crypto/rand"
	"sync"
)

// pending are questions to nodes whose answers somebody waits for. The zero
// value is ready; it is safe for concurrent use.
type pending[T any] struct {
	mu  sync.Mutex
	all map[string]waiter[T] // by id
}

type waiter[T any] struct {
	node   string
	answer chan T // has room for the only one
}

// begin notes that an answer of node is awaited, under an id of its own, until
// forget is called.
func (p *pending[T]) begin(node string) (id string, answer <-chan T) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all == nil {
		p.all = map[string]waiter[T]{}
	}
	id = rand.Text()
	w := waiter[T]{node, make(chan T, 1)}
	p.all[id] = w
	return id, w.answer
}

func (p *pending[T]) forget(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.all, id)
}

// take takes what a node answers, if it was asked that; it is listened to once.
func (p *pending[T]) take(node, id string, answer T) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w, known := p.all[id]; known && w.node == node {
		delete(p.all, id)
		w.answer <- answer
	}
}

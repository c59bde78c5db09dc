package store

import (
	"sync"

	"orch/engine/state"
)

// maxPending deltas wait for a slow watcher; after that it is told to look
// at everything.
const maxPending = 200_000

// Watcher collects what changes until it is asked.
type Watcher struct {
	wake    chan struct{}
	of      *watchers
	mu      sync.Mutex
	pending []state.Change
	count   int
	all     bool
}

type watchers struct {
	mu  sync.Mutex
	set map[*Watcher]bool
}

// Watch begins to collect. Stop it when done.
func (ws *watchers) Watch() *Watcher {
	w := &Watcher{wake: make(chan struct{}, 1), of: ws}
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.set == nil {
		ws.set = map[*Watcher]bool{}
	}
	ws.set[w] = true
	return w
}

// Wake has a value when Take has something.
func (w *Watcher) Wake() <-chan struct{} { return w.wake }

// Stop ends the collecting.
func (w *Watcher) Stop() {
	w.of.mu.Lock()
	defer w.of.mu.Unlock()
	delete(w.of.set, w)
}

// Take returns what changed since the last call, oldest first. all says that
// too much did, or that the state was restored: look at everything.
func (w *Watcher) Take() (changes []state.Change, all bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	changes, all = w.pending, w.all
	w.pending, w.count, w.all = nil, 0, false
	return changes, all
}

func (ws *watchers) tell(c state.Change) {
	ws.each(func(w *Watcher) {
		if w.all {
			return
		}
		w.pending = append(w.pending, c)
		if w.count += len(c.Deltas); w.count > maxPending {
			w.pending, w.count, w.all = nil, 0, true
		}
	})
}

func (ws *watchers) tellAll() {
	ws.each(func(w *Watcher) { w.pending, w.count, w.all = nil, 0, true })
}

func (ws *watchers) each(do func(*Watcher)) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for w := range ws.set {
		w.mu.Lock()
		do(w)
		w.mu.Unlock()
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

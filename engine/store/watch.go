package store

import (
	"sync"

	"orch/engine/state"
)

// maxPending deltas wait for a slow watcher; after that it is told to look
// at everything.
const maxPending = 200_000

// Change is one log entry's deltas.
type Change struct {
	Index  uint64
	Deltas []state.Delta
}

// Watcher collects what changes until it is asked.
type Watcher struct {
	C       <-chan struct{} // has a value when Take has something
	wake    chan struct{}
	of      *watchers
	mu      sync.Mutex
	pending []Change
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
	w.C = w.wake
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.set == nil {
		ws.set = map[*Watcher]bool{}
	}
	ws.set[w] = true
	return w
}

// Stop ends the collecting.
func (w *Watcher) Stop() {
	w.of.mu.Lock()
	defer w.of.mu.Unlock()
	delete(w.of.set, w)
}

// Take returns what changed since the last call, oldest first. all says that
// too much did, or that the state was restored: look at everything.
func (w *Watcher) Take() (changes []Change, all bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	changes, all = w.pending, w.all
	w.pending, w.count, w.all = nil, 0, false
	return changes, all
}

func (ws *watchers) tell(index uint64, deltas []state.Delta) {
	ws.each(func(w *Watcher) {
		if w.all {
			return
		}
		w.pending = append(w.pending, Change{index, deltas})
		if w.count += len(deltas); w.count > maxPending {
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

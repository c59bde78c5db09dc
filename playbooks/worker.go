package playbooks

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"orch/engine/api"
	"orch/engine/rollout"
)

// Worker is Strategies in a child process of the running program, whose main
// must begin as Sandbox says: a strategy that takes all memory or time ends
// its child alone. The child starts with the first question and ends when
// there is none for a while. Next waits for questions asked before; it is
// safe for concurrent use. The zero value is ready for use; Close it.
type Worker struct {
	MaxTime   time.Duration // a child is killed when a question takes longer; 0: 3 s
	MaxMemory uint64        // bounds a child's data, in bytes; 0: 512 MiB
	Idle      time.Duration // a child without questions ends after it; 0: 10 s

	mu     sync.Mutex
	child  *workerChild // nil: there is none
	asked  int          // questions so far
	idle   *time.Timer  // ends the child; nil: it isn't set
	timers sync.WaitGroup
	closed bool
}

var _ rollout.Strategy = (*Worker)(nil)

// errWorkerClosed is what is answered after Close.
var errWorkerClosed = errors.New("the strategies' worker is closed")

// errChildEnded marks that a child ended, maybe for no fault of the question.
var errChildEnded = errors.New("the child ended")

// Next implements rollout.Strategy. What is wrong with the strategy is an
// *Error.
func (w *Worker) Next(q rollout.Question) (*api.Op, error) {
	id, _, _ := cutStrategy(strategyOf(q.Rollout.GetPolicy()))
	q = narrow(q, id)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil, errWorkerClosed
	}
	w.stopIdle()
	w.asked++
	op, err := w.ask(q)
	if errors.Is(err, errChildEnded) {
		op, err = w.ask(q)
	}
	if w.child != nil {
		n := w.asked
		w.timers.Add(1)
		w.idle = time.AfterFunc(cmp.Or(w.Idle, 10*time.Second), func() { w.rest(n) })
	}
	return op, err
}

// Close ends the child. Questions asked later are errors.
func (w *Worker) Close() error {
	w.mu.Lock()
	w.closed = true
	w.stopIdle()
	w.endChild()
	w.mu.Unlock()
	w.timers.Wait()
	return nil
}

func (w *Worker) stopIdle() {
	if w.idle != nil && w.idle.Stop() {
		w.timers.Done()
	}
	w.idle = nil
}

// rest ends a child that had nothing to do since the n-th question.
func (w *Worker) rest(n int) {
	defer w.timers.Done()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.asked == n {
		w.idle = nil
		w.endChild()
	}
}

func (w *Worker) endChild() {
	if w.child != nil {
		w.child.end()
		w.child = nil
	}
}

// ask asks a child, starting it where there is none.
func (w *Worker) ask(q rollout.Question) (*api.Op, error) {
	limit, memory := cmp.Or(w.MaxTime, 3*time.Second), cmp.Or(w.MaxMemory, DefaultMaxMemory)
	if w.child == nil {
		c, err := startChild(memory, max(limit*2/3, MaxStrategyTime)) // what it says itself has a place
		if err != nil {
			return nil, fmt.Errorf("%w: its process can't be started: %w", rollout.ErrUnavailable, err)
		}
		w.child = c
	}
	c := w.child
	late := make(chan struct{})
	timer := time.AfterFunc(limit, func() {
		c.cmd.Process.Kill()
		close(late)
	})
	op, answered, err := c.ask(q)
	if !timer.Stop() {
		<-late
		answered = false
	}
	if answered {
		c.answered++
		return op, err
	}
	w.child = nil
	select {
	case <-late:
		c.kill()
		return nil, strategyError(q, timeMessage("strategy", limit))
	default:
	}
	ended := c.kill()
	switch text := c.stderr.String(); {
	case outOfMemory(text) && c.answered > 0: // by what it kept of others?
		return nil, errChildEnded
	case outOfMemory(text):
		return nil, strategyError(q, memoryMessage("strategy", memory))
	case strings.Contains(text, "stack overflow"):
		return nil, strategyError(q, "the strategy nests values or calls too deeply")
	default:
		first, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
		return nil, fmt.Errorf("%w: %w: %w (%v)%s", rollout.ErrUnavailable, errChildEnded, err, ended, strings.TrimSuffix(": "+first, ": "))
	}
}

// strategyError says what a strategy did to its child.
func strategyError(q rollout.Question, message string) error {
	file, _, _ := cutStrategy(strategyOf(q.Rollout.GetPolicy()))
	return &Error{[]Diagnostic{{Severity: "error", File: file, Message: message}}}
}

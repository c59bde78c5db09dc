package control

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"orch/engine/api"
	"orch/engine/rollout"
	"orch/engine/spec"
)

// Asker asks the world outside once, however long that takes.
type Asker interface {
	Ask(context.Context, rollout.ProbeOf) *api.Sample // never nil
}

// asked asks strategies and probes in the background, so that the loop waits
// for none of them: to what isn't answered yet it says so, and tells which
// services to look at once it is. Answers go by what was asked; what the
// engine forgets when it stops leading is asked again by the next leader.
type asked struct {
	ctx      context.Context
	strategy rollout.Strategy
	asker    Asker
	told     chan struct{} // an answer came

	mu      sync.Mutex
	ops     map[string]*answer // by rollout
	samples map[string]*answer // by key
	ready   []string           // services
	room    chan struct{}
	under   sync.WaitGroup
}

type answer struct {
	key    string
	done   bool
	at     time.Time
	op     *api.Op
	err    error
	sample *api.Sample
}

// atOnce is how many questions are asked at the same time.
const atOnce = 8

func newAsked(ctx context.Context, s rollout.Strategy, a Asker) *asked {
	return &asked{ctx: ctx, strategy: s, asker: a, told: make(chan struct{}, 1), ops: map[string]*answer{}, samples: map[string]*answer{}, room: make(chan struct{}, atOnce)}
}

// world is what rollouts ask.
func (a *asked) world() rollout.World {
	w := rollout.World{Strategy: a}
	if a.asker != nil {
		w.Prober = a
	}
	return w
}

// Next implements rollout.Strategy. A journal grows and its ops that have
// ended never change, so that its length and its end say which one it is; the
// first op is pinned anew for as long as it is the last.
func (a *asked) Next(q rollout.Question) (*api.Op, error) {
	last := q.Journal[len(q.Journal)-1]
	// Not its times: an op that ends in the pass that asks ends anew in the next.
	what := spec.Hash(&api.Op{Kind: last.Kind, Ok: last.Ok, Reason: last.Reason, Failed: last.Failed, Slots: last.Slots, Removed: last.Removed,
		Replicas: last.Replicas, Nodes: last.Nodes, Places: last.Places})
	key := fmt.Sprint(q.Rollout.CreatedAt.AsTime().UnixNano(), q.Rollout.BundleHash, q.Rollout.Generation, len(q.Journal), what)
	a.mu.Lock()
	defer a.mu.Unlock()
	if known := a.ops[q.Rollout.Id]; known != nil && known.key == key {
		known.at = time.Now()
		if !known.done {
			return nil, rollout.ErrPending
		}
		return known.op, known.err
	}
	got := &answer{key: key, at: time.Now()}
	forget(a.ops)
	a.ops[q.Rollout.Id] = got
	a.start(q.Rollout.ServiceId, got, func() (again bool) {
		op, err := a.strategy.Next(q)
		a.mu.Lock()
		defer a.mu.Unlock()
		got.op, got.err = op, err
		return errors.Is(err, rollout.ErrUnavailable)
	})
	return nil, rollout.ErrPending
}

// Probe implements rollout.Prober.
func (a *asked) Probe(key string, ask rollout.ProbeOf) *api.Sample {
	a.mu.Lock()
	defer a.mu.Unlock()
	if known := a.samples[key]; known != nil {
		known.at = time.Now()
		return known.sample
	}
	got := &answer{at: time.Now()}
	forget(a.samples)
	a.samples[key] = got
	a.start(ask.Service, got, func() (again bool) {
		sample := a.asker.Ask(a.ctx, ask)
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.ctx.Err() == nil { // else it only says that nobody waits any more
			got.sample = sample
		}
		return false
	})
	return nil
}

// A question that couldn't be asked is asked again, so many times, after
// pauses each twice as long as the one before.
const (
	mostTries  = 7
	firstPause = 100 * time.Millisecond
)

// start does what answers a question, again if it says so, and tells when it
// has.
func (a *asked) start(service string, got *answer, do func() (again bool)) {
	a.under.Go(func() {
		pause := firstPause
		for try := 1; ; try++ {
			select {
			case a.room <- struct{}{}:
			case <-a.ctx.Done():
				return
			}
			again := do()
			<-a.room
			if !again || try == mostTries {
				break
			}
			if !pauseFor(a.ctx, pause) {
				return
			}
			pause *= 2
		}
		a.mu.Lock()
		got.done = true
		a.ready = append(a.ready, service)
		a.mu.Unlock()
		select {
		case a.told <- struct{}{}:
		default:
		}
	})
}

// take lists the services for which answers came.
func (a *asked) take() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := a.ready
	a.ready = nil
	return all
}

// forgotten is after how long nobody is interested in an answer any more.
const forgotten = 10 * time.Minute

func forget(all map[string]*answer) {
	if len(all)%256 != 255 {
		return
	}
	for key, x := range all {
		if x.done && time.Since(x.at) > forgotten {
			delete(all, key)
		}
	}
}

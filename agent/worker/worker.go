package worker

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"orch/agent/task"
	"orch/engine/api"
)

// Here is how a task is, as its own node sees it.
type Here struct {
	Address   string
	Ready     bool
	Namespace string // path of its network namespace; empty: it has none of its own
}

// Checks asks a task whether it is healthy until ctx ends, and says each
// time that the answer changes.
type Checks func(ctx context.Context, check *api.HealthCheck, address string,
	exec func(ctx context.Context, argv []string) (int, string, error), report func(Health))

// Health is the answer of a check.
type Health struct {
	Healthy bool
	GivenUp bool   // it failed as often in a row as the check allows
	Reason  string // of the newest failure
}

// Config is what a worker is made of. Every field but Local and Inside is needed.
type Config struct {
	Cluster  string
	Runtimes []Runtime
	Checks   Checks
	// Local, if set, is told how the tasks here are, by id: at first, and
	// whenever that changes.
	Local func(map[string]Here)
	// Inside, if set, is where a process of this node reaches a port of a service.
	Inside func(service string, port uint32) (address string, ok bool)
	Logger *slog.Logger
}

// Worker runs the tasks of one node.
type Worker struct {
	Config
	runtimes map[string]Runtime
	wake     chan struct{} // statuses to report

	mu      sync.Mutex
	ctx     context.Context // of Run; nil before
	work    sync.WaitGroup
	actors  map[string]*actor
	next    map[string]*api.Assignment // begin when the task of that id before them is gone
	changed map[string]bool            // task ids with an unreported status
	routes  chan struct{}              // routes may have changed
	pruning int                        // sweeps and prunes under way
}

func (w *Worker) inside(service string, port uint32) (address string, ok bool) {
	if w.Inside == nil {
		return "", false
	}
	return w.Inside(service, port)
}

// New makes a worker; Run makes it work.
func New(c Config) *Worker {
	w := &Worker{
		Config: c, runtimes: map[string]Runtime{}, wake: make(chan struct{}, 1), routes: make(chan struct{}, 1),
		actors: map[string]*actor{}, next: map[string]*api.Assignment{}, changed: map[string]bool{},
	}
	for _, r := range c.Runtimes {
		w.runtimes[r.Name()] = r
	}
	return w
}

// Run works until ctx ends. Tasks go on running; a later worker adopts them.
func (w *Worker) Run(ctx context.Context) error {
	w.mu.Lock()
	w.ctx = ctx
	for _, a := range w.actors {
		w.launch(a)
	}
	w.mu.Unlock()
	w.work.Go(func() { w.tell(ctx) })
	<-ctx.Done()
	w.mu.Lock()
	w.ctx = nil
	w.mu.Unlock()
	w.work.Wait()
	return ctx.Err()
}

// launch begins an actor's goroutine; w.mu is held.
func (w *Worker) launch(a *actor) {
	ctx := w.ctx
	if ctx == nil || a.launched {
		return
	}
	a.launched = true
	w.work.Go(func() {
		a.run(ctx)
		w.mu.Lock()
		defer w.mu.Unlock()
		a.launched = false
		if a.forgotten && w.actors[a.t.ID] == a {
			delete(w.actors, a.t.ID)
			if as := w.next[a.t.ID]; as != nil {
				delete(w.next, a.t.ID)
				w.begin(as)
			}
			w.prune(ctx)
		}
	})
}

// Assign takes what the engine says should run here.
func (w *Worker) Assign(m *api.Assignments) {
	w.mu.Lock()
	defer w.mu.Unlock()
	listed := map[string]bool{}
	for _, as := range m.Tasks {
		listed[as.TaskId] = true
		switch a := w.actors[as.TaskId]; {
		case a != nil && a.created.Equal(as.CreatedAt.AsTime()):
			a.assign(as)
		case as.Spec == nil:
			if later := w.next[as.TaskId]; later != nil {
				later.Desired = max(later.Desired, as.Desired)
				continue
			}
			w.Logger.Error("the engine changed a task that this agent does not have", "task", as.TaskId)
		case a != nil: // of a service that was removed and came back
			a.remove()
			w.next[as.TaskId] = as
		default:
			w.begin(as)
		}
	}
	for _, id := range m.Removed {
		delete(w.next, id)
		if a := w.actors[id]; a != nil {
			a.remove()
		}
	}
	if m.Full {
		for id, a := range w.actors {
			if !listed[id] {
				a.remove()
			}
			// A new session has heard nothing yet.
			w.changed[id] = true
		}
		w.poke()
		w.sweep(listed)
	}
	w.reroute()
}

// begin makes an actor for a new task; w.mu is held.
func (w *Worker) begin(as *api.Assignment) {
	a := w.newActor(as)
	w.actors[as.TaskId] = a
	w.launch(a)
}

// sweep ends what runs here for the cluster although no engine knows it.
func (w *Worker) sweep(listed map[string]bool) {
	ctx := w.ctx
	if ctx == nil {
		return
	}
	w.pruning++
	w.work.Go(func() {
		defer func() {
			w.mu.Lock()
			w.pruning--
			w.mu.Unlock()
		}()
		for _, r := range w.Runtimes {
			found, err := r.List(ctx)
			if err != nil {
				if ctx.Err() == nil {
					w.Logger.Warn("cannot list what runs here", "runtime", r.Name(), "error", err)
				}
				continue
			}
			for _, o := range found {
				// Asked now: it may have been assigned since.
				w.mu.Lock()
				known := listed[o.TaskID] || w.actors[o.TaskID] != nil
				w.mu.Unlock()
				if !known {
					w.Logger.Info("removing a task that the cluster does not know", "task", o.TaskID)
					w.end(ctx, r, o.TaskID)
				}
			}
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.prune(ctx)
	})
}

func (w *Worker) end(ctx context.Context, r Runtime, id string) {
	if err := r.Stop(ctx, &task.Task{ID: id, Cluster: w.Cluster, Spec: &api.TaskSpec{}}); err != nil {
		w.Logger.Warn("cannot stop a task", "task", id, "error", err)
		return
	}
	if err := r.Remove(ctx, id); err != nil {
		w.Logger.Warn("cannot remove a task", "task", id, "error", err)
	}
}

// prune lets runtimes drop the networks of stacks that are gone; w.mu is held.
func (w *Worker) prune(ctx context.Context) {
	keep := map[string]bool{}
	for _, a := range w.actors {
		if !a.forgotten && !a.over() {
			keep[a.t.Stack] = true
		}
	}
	w.pruning++
	w.work.Go(func() {
		defer func() {
			w.mu.Lock()
			w.pruning--
			w.mu.Unlock()
		}()
		for _, r := range w.Runtimes {
			if err := r.Prune(ctx, keep); err != nil && ctx.Err() == nil {
				w.Logger.Warn("cannot remove what stacks left behind", "runtime", r.Name(), "error", err)
			}
		}
	})
}

// Changed has a value when Statuses has something new.
func (w *Worker) Changed() <-chan struct{} { return w.wake }

// Statuses returns the statuses that changed since the last call.
func (w *Worker) Statuses() []*api.TaskStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []*api.TaskStatus
	for id := range w.changed {
		if a := w.actors[id]; a != nil {
			if s := a.report(); s != nil {
				all = append(all, s)
			}
		}
	}
	clear(w.changed)
	return all
}

// All returns every status, for the hello of a new session.
func (w *Worker) All() []*api.TaskStatus {
	w.mu.Lock()
	for id := range w.actors {
		w.changed[id] = true
	}
	w.mu.Unlock()
	return w.Statuses()
}

// Bare says that nothing is left here: no task, and nothing of the stacks
// that had some.
func (w *Worker) Bare() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.actors) == 0 && w.pruning == 0
}

// Facts asks every runtime whether it can be used.
func (w *Worker) Facts(ctx context.Context) []*api.RuntimeFacts {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	all := make([]*api.RuntimeFacts, len(w.Runtimes))
	var wg sync.WaitGroup
	for i, r := range w.Runtimes {
		wg.Go(func() { all[i] = r.Facts(ctx) })
	}
	wg.Wait()
	return all
}

func (w *Worker) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *Worker) reroute() {
	select {
	case w.routes <- struct{}{}:
	default:
	}
}

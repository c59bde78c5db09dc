package worker_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/timestamppb"

	"orch/agent/task"
	"orch/agent/worker"
	"orch/engine/api"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	pending   = api.TaskState_TASK_STATE_ASSIGNED
	preparing = api.TaskState_TASK_STATE_PREPARING
	starting  = api.TaskState_TASK_STATE_STARTING
	up        = api.TaskState_TASK_STATE_RUNNING
	complete  = api.TaskState_TASK_STATE_COMPLETE
	stopped   = api.TaskState_TASK_STATE_STOPPED
	failed    = api.TaskState_TASK_STATE_FAILED
	run       = api.TaskDesired_TASK_DESIRED_RUN
	stop      = api.TaskDesired_TASK_DESIRED_STOP
)

// rig is a worker on a fake runtime and a fake clock.
type rig struct {
	*testing.T
	rt     *fake
	w      *worker.Worker
	known  map[string]*api.TaskStatus
	health map[string]chan worker.Health // by check type
	end    func()
}

func bubble(t *testing.T, test func(*rig)) {
	synctest.Test(t, func(t *testing.T) {
		r := &rig{T: t, rt: newFake(), known: map[string]*api.TaskStatus{}, health: map[string]chan worker.Health{"ready": make(chan worker.Health), "live": make(chan worker.Health)}}
		r.begin()
		defer func() { r.end() }()
		test(r)
	})
}

// begin makes a worker, as after a restart of the agent.
func (r *rig) begin() {
	if r.end != nil {
		r.end()
	}
	checks := func(ctx context.Context, c *api.HealthCheck, _ string, _ func(context.Context, []string) (int, string, error), report func(worker.Health)) {
		for {
			select {
			case <-ctx.Done():
				return
			case h := <-r.health[c.Type]:
				report(h)
			}
		}
	}
	r.w = worker.New(worker.Config{Cluster: "c", Runtimes: []worker.Runtime{r.rt}, Checks: checks, Logger: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = r.w.Run(ctx) })
	r.end = func() { cancel(); wg.Wait() }
	synctest.Wait()
}

func as(id string, change ...func(*api.Assignment)) *api.Assignment {
	a := &api.Assignment{TaskId: id, Desired: run, Status: &api.TaskStatus{TaskId: id, State: pending}, Stack: "web", Service: "app", Slot: "web/app.1", Version: "v1", Spec: &api.TaskSpec{Runtime: "fake"}}
	for _, c := range change {
		c(a)
	}
	return a
}

func (r *rig) assign(full bool, tasks ...*api.Assignment) {
	r.w.Assign(&api.Assignments{Full: full, Tasks: tasks})
	r.settle(0)
}

// settle lets d pass, until nothing moves, and takes the statuses.
func (r *rig) settle(d time.Duration) {
	if d > 0 {
		_ = sleep(context.Background(), d)
	}
	synctest.Wait()
	for _, s := range r.w.Statuses() {
		if old := r.known[s.TaskId]; old != nil && s.State < old.State {
			r.Errorf("%s went from %s to %s", s.TaskId, old.State, s.State)
		}
		r.known[s.TaskId] = s
	}
}

func (r *rig) want(id string, state api.TaskState, ready bool, message string) {
	r.Helper()
	s := r.known[id]
	if s.GetState() != state || s.GetReady() != ready || !strings.Contains(s.GetMessage(), message) || message == "" && s.GetMessage() != "" {
		r.Errorf("%s is %v, want %s, ready %v, %q", id, s, state, ready, message)
	}
}

func TestRunsToItsEnd(t *testing.T) {
	bubble(t, func(r *rig) {
		r.rt.slow = 5 * time.Second
		r.assign(true, as("a"))
		r.want("a", preparing, false, "pulling")
		r.settle(6 * time.Second)
		r.want("a", up, true, "")
		if s := r.known["a"]; s.RuntimeId != "rt-a" || s.Address != "10.0.0.1" || s.Adopted || s.ReadySince == nil || s.StartedAt == nil {
			t.Errorf("got %v", s)
		}
		r.rt.things["a"].lines = []string{"first", "cannot bind: address in use"}
		r.rt.exit("a", 1)
		r.settle(0)
		r.want("a", failed, false, "exited with code 1: cannot bind: address in use")
		r.settle(time.Hour)
		if r.rt.done("start", "a") != 1 || r.rt.done("remove", "a") != 0 {
			t.Errorf("calls: %q", r.rt.calls)
		}
	})
}

func TestExitZeroIsComplete(t *testing.T) {
	bubble(t, func(r *rig) {
		r.assign(true, as("a"))
		r.rt.exit("a", 0)
		r.settle(0)
		r.want("a", complete, false, "exited with code 0")
	})
}

func TestPrepareFails(t *testing.T) {
	bubble(t, func(r *rig) {
		r.rt.prepare = errors.New("there is no image \"nope\"")
		r.assign(true, as("a"))
		r.want("a", failed, false, "there is no image \"nope\"")
		if r.rt.done("start", "a") != 0 {
			t.Error("started")
		}
	})
}

func TestUnknownRuntime(t *testing.T) {
	bubble(t, func(r *rig) {
		r.assign(true, as("a", func(a *api.Assignment) { a.Spec.Runtime = "vm" }))
		r.want("a", failed, false, `this node has no runtime "vm"`)
		r.w.Assign(&api.Assignments{Removed: []string{"a"}})
		r.settle(0)
		if !r.w.Bare() {
			t.Error("it is not forgotten")
		}
	})
}

func TestReadinessGates(t *testing.T) {
	bubble(t, func(r *rig) {
		r.assign(true, as("a", func(a *api.Assignment) { a.Spec.Health = &api.HealthCheck{Type: "ready"} }))
		r.want("a", starting, false, "waits for its first good health check")
		r.health["ready"] <- worker.Health{Reason: "connection refused"}
		r.settle(0)
		r.want("a", starting, false, "not ready: connection refused")
		r.health["ready"] <- worker.Health{Healthy: true}
		r.settle(0)
		r.want("a", up, true, "")
		r.health["ready"] <- worker.Health{Reason: "503", GivenUp: true}
		r.settle(0)
		r.want("a", up, false, "not ready: 503")
		if r.rt.done("stop", "a") != 0 {
			t.Error("readiness is no reason to stop a task")
		}
	})
}

// A task that fails its liveness check has failed, however well it exits
// when it is told to stop.
func TestLiveness(t *testing.T) {
	bubble(t, func(r *rig) {
		r.rt.grace = 3 * time.Second
		r.assign(true, as("a", func(a *api.Assignment) {
			a.Spec.Health, a.Spec.Liveness = &api.HealthCheck{Type: "ready"}, &api.HealthCheck{Type: "live"}
		}))
		r.health["ready"] <- worker.Health{Healthy: true}
		r.health["live"] <- worker.Health{Reason: "not yet"}
		r.settle(0)
		r.want("a", up, true, "")
		r.health["live"] <- worker.Health{Reason: "hangs", GivenUp: true}
		r.settle(4 * time.Second)
		r.want("a", failed, false, "failed its liveness check: hangs")
		if r.rt.done("stop", "a") != 1 {
			t.Errorf("calls: %q", r.rt.calls)
		}
	})
}

func TestStop(t *testing.T) {
	bubble(t, func(r *rig) {
		r.rt.grace = 2 * time.Second
		r.assign(true, as("a"))
		r.assign(false, &api.Assignment{TaskId: "a", Desired: stop, Drained: true})
		r.want("a", api.TaskState_TASK_STATE_STOPPING, false, "")
		r.settle(3 * time.Second)
		r.want("a", stopped, false, "")
		r.assign(false, &api.Assignment{TaskId: "a", Desired: run}) // too late
		r.settle(time.Minute)
		r.want("a", stopped, false, "")
	})
}

// A task that is to stop serves on until the engine says that nobody needs it
// any more.
func TestStopWaitsUntilDrained(t *testing.T) {
	bubble(t, func(r *rig) {
		r.assign(true, as("a"))
		r.assign(false, &api.Assignment{TaskId: "a", Desired: stop})
		r.settle(time.Minute)
		r.want("a", up, true, "")
		r.assign(false, &api.Assignment{TaskId: "a", Desired: stop, Drained: true})
		r.settle(time.Second)
		r.want("a", stopped, false, "")
	})
}

// STOP ends a long preparation at once, and nothing starts.
func TestStopInterruptsPrepare(t *testing.T) {
	bubble(t, func(r *rig) {
		r.rt.slow = time.Hour
		r.assign(true, as("a"))
		r.want("a", preparing, false, "pulling")
		began := time.Now()
		r.assign(false, &api.Assignment{TaskId: "a", Desired: stop, Drained: true})
		r.want("a", stopped, false, "")
		if time.Since(began) > 0 || r.rt.done("start", "a") != 0 {
			t.Errorf("after %s: %q", time.Since(began), r.rt.calls)
		}
	})
}

func TestNotBefore(t *testing.T) {
	bubble(t, func(r *rig) {
		r.assign(true, as("a", func(a *api.Assignment) { a.NotBefore = timestamppb.New(time.Now().Add(time.Minute)) }))
		r.settle(59 * time.Second)
		if r.rt.done("prepare", "a") != 0 {
			t.Error("too early")
		}
		r.settle(2 * time.Second)
		r.want("a", up, true, "")
	})
}

func TestNotBeforeEndsWithStop(t *testing.T) {
	bubble(t, func(r *rig) {
		r.assign(true, as("a", func(a *api.Assignment) { a.NotBefore = timestamppb.New(time.Now().Add(time.Hour)) }))
		r.assign(false, &api.Assignment{TaskId: "a", Desired: stop, Drained: true})
		r.want("a", stopped, false, "")
	})
}

func TestInspectIsTriedAgain(t *testing.T) {
	bubble(t, func(r *rig) {
		r.rt.inspect = errors.New("the daemon does not answer")
		r.assign(true, as("a"))
		r.want("a", pending, false, "the daemon does not answer")
		r.settle(10 * time.Second)
		r.rt.mu.Lock()
		r.rt.inspect = nil
		r.rt.mu.Unlock()
		r.settle(2 * time.Second)
		r.want("a", up, true, "")
	})
}

// A new worker finds what the old one started, and leaves it alone.
func TestAdoption(t *testing.T) {
	bubble(t, func(r *rig) {
		r.assign(true, as("a"), as("b"))
		r.begin()
		r.rt.exit("b", 0) // while nobody looked
		r.assign(true, as("a", func(a *api.Assignment) { a.Status = &api.TaskStatus{TaskId: a.TaskId, State: up, Ready: true} }), as("b", func(a *api.Assignment) { a.Status = &api.TaskStatus{TaskId: a.TaskId, State: up, Ready: true} }))
		r.want("a", up, true, "")
		r.want("b", complete, false, "exited with code 0")
		if !r.known["a"].Adopted || r.rt.done("start", "a") != 1 || r.rt.done("prepare", "a") != 1 {
			t.Errorf("%v, calls: %q", r.known["a"], r.rt.calls)
		}
		r.rt.exit("a", 9)
		r.settle(0)
		r.want("a", failed, false, "exited with code 9")
	})
}

// What vanished while the agent was away has failed; it isn't made again.
func TestVanished(t *testing.T) {
	bubble(t, func(r *rig) {
		r.assign(true, as("a", func(a *api.Assignment) { a.Status = &api.TaskStatus{TaskId: a.TaskId, State: up, Ready: true} }))
		r.want("a", failed, false, "it disappeared")
		if r.rt.done("prepare", "a")+r.rt.done("start", "a") != 0 {
			t.Errorf("calls: %q", r.rt.calls)
		}
	})
}

func TestRemove(t *testing.T) {
	bubble(t, func(r *rig) {
		r.assign(true, as("a"), as("b", func(a *api.Assignment) { a.Stack = "other" }))
		r.w.Assign(&api.Assignments{Removed: []string{"a"}})
		r.settle(0)
		if r.rt.things["a"] != nil || r.rt.things["b"] == nil || r.rt.done("stop", "a") != 1 {
			t.Errorf("calls: %q", r.rt.calls)
		}
		if r.rt.kept["web"] || !r.rt.kept["other"] {
			t.Errorf("pruned all but %v", r.rt.kept)
		}
		r.assign(true) // nothing is left
		if len(r.rt.things) != 0 || !r.w.Bare() {
			t.Errorf("calls: %q", r.rt.calls)
		}
	})
}

// What no engine knows goes; what was assigned while the runtimes were being
// listed stays.
func TestSweep(t *testing.T) {
	bubble(t, func(r *rig) {
		ctx := r.Context()
		stray := &task.Task{ID: "stray"}
		if err := r.rt.Prepare(ctx, stray, func(string) {}); err != nil {
			t.Fatal(err)
		}
		if _, err := r.rt.Start(ctx, stray); err != nil {
			t.Fatal(err)
		}
		r.rt.listDelay = 5 * time.Second
		r.assign(true, as("a"))
		r.assign(false, as("new"))
		r.settle(10 * time.Second)
		if r.rt.things["stray"] != nil || r.rt.done("stop", "stray") != 1 {
			t.Error("the stray is left")
		}
		r.want("a", up, true, "")
		r.want("new", up, true, "")
		if r.rt.done("stop", "new") != 0 {
			t.Error("a task that came meanwhile was stopped")
		}
	})
}

func TestStatusesCoalesce(t *testing.T) {
	bubble(t, func(r *rig) {
		r.w.Assign(&api.Assignments{Full: true, Tasks: []*api.Assignment{as("a"), as("b")}})
		synctest.Wait()
		if got := r.w.Statuses(); len(got) != 2 {
			t.Errorf("got %v", got)
		}
		if got := r.w.Statuses(); len(got) != 0 {
			t.Errorf("twice: %v", got)
		}
		if got := r.w.All(); len(got) != 2 {
			t.Errorf("all: %v", got)
		}
	})
}

// A long preparation reports how far it is, but not often.
func TestProgressIsSparse(t *testing.T) {
	bubble(t, func(r *rig) {
		r.rt.slow = time.Second
		r.w.Assign(&api.Assignments{Full: true, Tasks: []*api.Assignment{as("a")}})
		n := 0
		ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
		defer cancel()
		for ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-r.w.Changed():
				n += len(r.w.Statuses())
			}
		}
		if n > 4 {
			t.Errorf("%d statuses", n)
		}
	})
}

func TestLogs(t *testing.T) {
	bubble(t, func(r *rig) {
		r.assign(true, as("a"), as("b"))
		r.rt.things["a"].lines, r.rt.things["b"].lines = []string{"a1", "a2"}, []string{"b1"}
		var got []string
		send := func(b *api.LogBatch) error {
			if b.Subscription != "s" {
				t.Errorf("got %v", b)
			}
			for _, l := range b.Lines {
				got = append(got, l.TaskId+":"+string(l.Text))
			}
			if b.Error != "" {
				got = append(got, b.Error)
			}
			if b.End {
				got = append(got, "end")
			}
			return nil
		}
		if err := r.w.Logs(r.Context(), &api.LogRequest{Subscription: "s", TaskIds: []string{"a", "b", "c"}, Tail: -1}, send); err != nil {
			t.Fatal(err)
		}
		text := strings.Join(got, " ")
		if len(got) != 5 || !strings.Contains(text, "a:a1") || !strings.Contains(text, "b:b1") || !strings.HasSuffix(text, "task c is not on this node any more end") {
			t.Errorf("got %q", got)
		}

		// Followed: until the tasks end.
		got = nil
		done := make(chan error, 1)
		go func() {
			done <- r.w.Logs(context.Background(), &api.LogRequest{Subscription: "s", TaskIds: []string{"a", "b"}, Follow: true, Tail: -1}, send)
		}()
		r.settle(time.Second)
		r.rt.mu.Lock()
		r.rt.things["a"].lines = append(r.rt.things["a"].lines, "a3")
		r.rt.mu.Unlock()
		r.settle(time.Second)
		r.rt.exit("a", 0)
		r.rt.exit("b", 0)
		if err := <-done; err != nil || len(got) != 5 || got[4] != "end" {
			t.Errorf("got %q, %v", got, err)
		}

		// A reader that goes away ends it.
		gone := errors.New("gone")
		if err := r.w.Logs(r.Context(), &api.LogRequest{TaskIds: []string{"a", "b"}, Tail: -1}, func(*api.LogBatch) error { return gone }); !errors.Is(err, gone) {
			t.Errorf("got %v", err)
		}
	})
}

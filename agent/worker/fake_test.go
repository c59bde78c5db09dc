package worker_test

import (
	"context"
	"errors"
	"sync"
	"time"

	"orch/agent/task"
	"orch/engine/api"
)

// fake is a runtime in memory. What it runs outlives a worker.
type fake struct {
	mu        sync.Mutex
	things    map[string]*thing
	calls     []string
	inspect   error         // of the next Inspect
	slow      time.Duration // Prepare takes
	prepare   error
	listDelay time.Duration
	grace     time.Duration // Stop takes
	kept      map[string]bool
}

type thing struct {
	seen  task.Observed
	ended chan struct{}
	lines []string
}

func newFake() *fake { return &fake{things: map[string]*thing{}} }

func (f *fake) call(what, id string) { f.calls = append(f.calls, what+" "+id) }

func (f *fake) Name() string { return "fake" }

func (f *fake) Facts(context.Context) *api.RuntimeFacts { return &api.RuntimeFacts{Name: "fake"} }

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

func (f *fake) Prepare(ctx context.Context, t *task.Task, progress func(string)) error {
	f.mu.Lock()
	f.call("prepare", t.ID)
	slow, err := f.slow, f.prepare
	f.mu.Unlock()
	for range 10 {
		progress("pulling")
		if err := sleep(ctx, slow/10); err != nil {
			return err
		}
	}
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.things[t.ID] == nil {
		f.things[t.ID] = &thing{seen: task.Observed{TaskID: t.ID, Phase: task.Created}, ended: make(chan struct{})}
	}
	return nil
}

func (f *fake) Start(_ context.Context, t *task.Task) (task.Observed, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.call("start", t.ID)
	th := f.things[t.ID]
	if th == nil {
		return task.Observed{}, errors.New("not prepared")
	}
	th.seen.Phase, th.seen.RuntimeID, th.seen.Address, th.seen.StartedAt = task.Running, "rt-"+t.ID, "10.0.0.1", time.Now()
	return th.seen, nil
}

func (f *fake) Inspect(_ context.Context, id string) (task.Observed, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.inspect; err != nil {
		return task.Observed{}, err
	}
	if th := f.things[id]; th != nil {
		return th.seen, nil
	}
	return task.Observed{TaskID: id}, nil
}

func (f *fake) Wait(ctx context.Context, id string) (task.Observed, error) {
	f.mu.Lock()
	th := f.things[id]
	f.mu.Unlock()
	if th == nil {
		return task.Observed{}, nil
	}
	select {
	case <-ctx.Done():
		return task.Observed{}, ctx.Err()
	case <-th.ended:
		return th.seen, nil
	}
}

func (f *fake) Stop(ctx context.Context, t *task.Task) error {
	f.mu.Lock()
	f.call("stop", t.ID)
	grace := f.grace
	f.mu.Unlock()
	if err := sleep(ctx, grace); err != nil {
		return err
	}
	f.exit(t.ID, 0)
	return nil
}

// exit ends a task as if by itself.
func (f *fake) exit(id string, code int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if th := f.things[id]; th != nil && th.seen.Phase == task.Running {
		th.seen.Phase, th.seen.ExitCode = task.Exited, code
		close(th.ended)
	}
}

func (f *fake) Remove(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.call("remove", id)
	delete(f.things, id)
	return nil
}

func (f *fake) List(ctx context.Context) ([]task.Observed, error) {
	if err := sleep(ctx, f.listDelay); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []task.Observed
	for _, th := range f.things {
		all = append(all, th.seen)
	}
	return all, nil
}

// Exec knows three commands: echo TEXT, exit TEXT (with 3) and hang TEXT.
func (f *fake) Exec(ctx context.Context, id string, argv []string) (int, string, error) {
	f.mu.Lock()
	th := f.things[id]
	running := th != nil && th.seen.Phase == task.Running
	f.mu.Unlock()
	if !running {
		return -1, "", errors.New("it is not running")
	}
	switch argv[0] {
	case "echo":
		return 0, argv[1], nil
	case "exit":
		return 3, argv[1], nil
	case "hang":
		<-ctx.Done()
		return -1, argv[1], ctx.Err()
	}
	return -1, "", errors.New("no such program")
}

func (f *fake) Logs(ctx context.Context, id string, opt task.LogOptions, emit func(task.Line) error) error {
	f.mu.Lock()
	th := f.things[id]
	f.mu.Unlock()
	if th == nil {
		return nil
	}
	for i := 0; ; i++ {
		f.mu.Lock()
		lines, phase := th.lines, th.seen.Phase
		f.mu.Unlock()
		if i < len(lines) {
			if err := emit(task.Line{Stream: "stdout", Time: time.Now(), Text: []byte(lines[i])}); err != nil {
				return err
			}
			continue
		}
		if !opt.Follow || phase == task.Exited {
			return nil
		}
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			return err
		}
		i--
	}
}

func (f *fake) Prune(_ context.Context, keep map[string]bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.kept = keep
	return nil
}

func (f *fake) done(what, id string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, c := range f.calls {
		if c == what+" "+id {
			n++
		}
	}
	return n
}

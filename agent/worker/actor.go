package worker

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"orch/agent/task"
	"orch/engine/api"
)

// actor drives one task: it asks task.Next, does it, and looks again.
type actor struct {
	w       *Worker
	t       *task.Task
	runtime Runtime
	ports   []*api.PortSpec
	created time.Time // with the id, which task this is
	poke    chan struct{}

	launched, forgotten bool // guarded by w.mu

	mu        sync.Mutex
	notBefore time.Time
	k         task.Knowledge
	status    *api.TaskStatus
	told      bool // a status of our own exists
	namespace string
	current   context.CancelFunc
}

func (w *Worker) newActor(as *api.Assignment) *actor {
	t := &task.Task{
		ID: as.TaskId, Cluster: w.Cluster, Stack: as.Stack, Service: as.Service, Slot: as.Slot, Version: as.Version,
		Spec: proto.CloneOf(as.Spec), Files: as.Files, Networks: as.Networks, Volumes: as.Volumes, Labels: as.Labels,
	}
	w.resolve(t)
	a := &actor{w: w, t: t, runtime: w.runtimes[t.Spec.Runtime], ports: as.Ports, created: as.CreatedAt.AsTime(), poke: make(chan struct{}, 1)}
	a.k = task.Knowledge{Desired: as.Desired, State: as.Status.GetState(), Hold: as.Hold, Drained: as.Drained}
	// What the engine knows holds until this agent has looked: a task that is
	// adopted stays in rotation meanwhile.
	a.status = &api.TaskStatus{TaskId: t.ID}
	if as.Status != nil {
		a.status = proto.CloneOf(as.Status)
	}
	if as.NotBefore != nil {
		a.notBefore = as.NotBefore.AsTime()
	}
	return a
}

// assign takes a change of what is desired.
func (a *actor) assign(as *api.Assignment) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if as.Desired > a.k.Desired || as.Drained && !a.k.Drained {
		a.k.Desired, a.k.Drained = max(as.Desired, a.k.Desired), as.Drained
		a.interrupt()
	}
	if a.k.Hold && !as.Hold {
		a.k.Hold = false
		select { // what is being prepared goes on
		case a.poke <- struct{}{}:
		default:
		}
	}
	if state := as.Status.GetState(); state >= api.TaskState_TASK_STATE_COMPLETE && a.k.State < state {
		a.k.State = state // given up by the engine: LOST
		a.interrupt()
	}
}

func (a *actor) remove() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.k.Removed = true
	a.interrupt()
}

// interrupt ends the action under way, so that Next is asked again; a.mu is
// held.
func (a *actor) interrupt() {
	if a.current != nil {
		a.current()
	}
	select {
	case a.poke <- struct{}{}:
	default:
	}
}

func (a *actor) over() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.k.State >= api.TaskState_TASK_STATE_COMPLETE
}

// retry is the pause after a runtime could not be asked.
const retry = time.Second

// run acts until the task is forgotten or ctx ends.
func (a *actor) run(ctx context.Context) {
	if a.runtime == nil {
		a.fail(fmt.Sprintf("this node has no runtime %q", a.t.Spec.Runtime))
	}
	for ctx.Err() == nil {
		var seen task.Observed
		if a.runtime != nil {
			var err error
			if seen, err = a.runtime.Inspect(ctx, a.t.ID); err != nil {
				a.note(err.Error())
				a.rest(ctx, retry)
				continue
			}
		}
		if seen.Version != "" && seen.Version != a.t.Version {
			// Left by a task of the same id, before its service was removed.
			a.w.end(ctx, a.runtime, a.t.ID)
			a.rest(ctx, retry/10)
			continue
		}
		k, act := a.next(ctx, seen)
		switch act.action {
		case task.Rest:
			a.rest(ctx, 0)
		case task.Prepare:
			a.prepare(act.ctx)
		case task.Start:
			a.start(act.ctx)
		case task.Watch:
			a.watch(act.ctx, seen)
		case task.Stop:
			a.stop(ctx)
		case task.Finish:
			state, text := task.End(k, seen)
			if state == api.TaskState_TASK_STATE_FAILED && seen.Phase == task.Exited {
				text = a.withLastWords(ctx, text)
			}
			a.finish(state, text, seen)
		case task.Remove:
			if err := a.runtime.Remove(ctx, a.t.ID); err != nil {
				a.w.Logger.Warn("cannot remove a task", "task", a.t.ID, "error", err)
				a.rest(ctx, retry)
			}
		case task.Forget:
			a.w.mu.Lock()
			a.forgotten = true
			a.w.mu.Unlock()
			a.w.reroute()
			act.cancel()
			return
		}
		act.cancel()
	}
}

type step struct {
	action task.Action
	ctx    context.Context // ends when what is desired changes
	cancel context.CancelFunc
}

func (a *actor) next(ctx context.Context, seen task.Observed) (task.Knowledge, step) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.k.Phase = seen.Phase
	s := step{action: task.Next(a.k)}
	s.ctx, s.cancel = context.WithCancel(ctx)
	a.current = s.cancel
	select { // what poked us is taken into account now
	case <-a.poke:
	default:
	}
	return a.k, s
}

// rest waits for news; after d at the latest unless d is 0.
func (a *actor) rest(ctx context.Context, d time.Duration) {
	var timeout <-chan time.Time
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		timeout = t.C
	}
	select {
	case <-ctx.Done():
	case <-a.poke:
	case <-timeout:
	}
}

// update changes the status and has it reported.
func (a *actor) update(change func(*api.TaskStatus)) {
	a.mu.Lock()
	s := proto.CloneOf(a.status)
	change(s)
	if s.State < a.status.State {
		s.State = a.status.State // states only advance
	}
	if s.State != a.status.State || s.StateSince == nil {
		s.StateSince = timestamppb.Now()
	}
	if s.Ready && !a.status.Ready {
		s.ReadySince = timestamppb.Now()
	}
	same := a.told && proto.Equal(s, a.status)
	a.status, a.k.State, a.told = s, s.State, true
	a.mu.Unlock()
	if same {
		return
	}
	a.w.mu.Lock()
	a.w.changed[a.t.ID] = true
	a.w.mu.Unlock()
	a.w.poke()
	a.w.reroute()
}

// report is the status as it is to be told; nil if the agent knows nothing
// that the engine didn't tell it.
func (a *actor) report() *api.TaskStatus {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.told {
		return nil
	}
	return a.status
}

// lastWords of a failed task are told in at most so many bytes.
const lastWords = 200

// withLastWords adds the last line that a task put out to why it ended:
// mostly that line is the reason.
func (a *actor) withLastWords(ctx context.Context, text string) string {
	ctx, cancel := context.WithTimeout(ctx, retry)
	defer cancel()
	var last []byte
	err := a.runtime.Logs(ctx, a.t.ID, task.LogOptions{Tail: 1}, func(l task.Line) error {
		last = append(last[:0], l.Text...)
		return nil
	})
	line := strings.ToValidUTF8(string(bytes.TrimSpace(last)), "?")
	if err != nil || line == "" {
		return text
	}
	if len(line) > lastWords {
		line = strings.ToValidUTF8(line[:lastWords], "") + "…"
	}
	return text + ": " + line
}

func (a *actor) note(message string) {
	a.update(func(s *api.TaskStatus) { s.Message = message })
}

func (a *actor) fail(message string) {
	a.finish(api.TaskState_TASK_STATE_FAILED, message, task.Observed{})
}

func (a *actor) finish(state api.TaskState, message string, seen task.Observed) {
	a.update(func(s *api.TaskStatus) {
		s.State, s.Ready, s.Message, s.ExitCode = state, false, message, int32(seen.ExitCode)
	})
}

package worker

import (
	"context"
	"net"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"orch/agent/task"
	"orch/engine/api"
)

// progressEvery is how often at most a task's preparation reports how far it
// is: each report is an entry of the replicated log.
const progressEvery = 2 * time.Second

func (a *actor) prepare(ctx context.Context) {
	if wait := time.Until(a.notBefore); wait > 0 {
		a.rest(ctx, wait)
		return // look again: it may be wanted no more
	}
	a.update(func(s *api.TaskStatus) { s.State, s.Message = api.TaskState_TASK_STATE_PREPARING, "" })
	var last time.Time
	err := a.runtime.Prepare(ctx, a.t, func(text string) {
		if now := time.Now(); now.Sub(last) >= progressEvery {
			last = now
			a.note(text)
		}
	})
	switch {
	case ctx.Err() != nil:
	case err != nil:
		a.fail(err.Error())
	default:
		a.mu.Lock()
		a.k.Prepared = true
		a.mu.Unlock()
		a.update(func(s *api.TaskStatus) { s.PreparedAt, s.Message = timestamppb.Now(), "" })
	}
}

func (a *actor) start(ctx context.Context) {
	seen, err := a.runtime.Start(ctx, a.t)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		a.fail(err.Error())
	default:
		a.running(seen, false)
	}
}

// running reports that the task runs; without a readiness check it is ready
// as well.
func (a *actor) running(seen task.Observed, adopted bool) {
	a.mu.Lock()
	a.namespace = seen.Namespace
	a.mu.Unlock()
	a.update(func(s *api.TaskStatus) {
		s.RuntimeId, s.Address, s.Adopted = seen.RuntimeID, seen.Address, adopted
		s.StartedAt = timestamppb.New(seen.StartedAt)
		if a.t.Spec.Health == nil {
			s.State, s.Ready, s.Message = api.TaskState_TASK_STATE_RUNNING, true, ""
		} else if s.State < api.TaskState_TASK_STATE_STARTING {
			s.State, s.Message = api.TaskState_TASK_STATE_STARTING, "waits for its first good health check"
		}
	})
}

// watch checks the health of a running task until it ends or is wanted no
// more.
func (a *actor) watch(ctx context.Context, seen task.Observed) {
	a.mu.Lock()
	known := a.status.State >= api.TaskState_TASK_STATE_STARTING && a.status.RuntimeId == seen.RuntimeID && a.told
	a.mu.Unlock()
	if !known {
		a.running(seen, true)
	}
	during, cancel := context.WithCancel(ctx)
	defer cancel()
	var checks sync.WaitGroup
	exec := func(ctx context.Context, argv []string) (int, string, error) {
		return a.runtime.Exec(ctx, a.t.ID, argv)
	}
	if h := a.t.Spec.Health; h != nil {
		checks.Go(func() { a.w.Checks(during, h, seen.Address, exec, a.readiness) })
	}
	unalive := make(chan string, 1)
	if h := a.t.Spec.Liveness; h != nil {
		checks.Go(func() {
			a.w.Checks(during, h, seen.Address, exec, func(h Health) {
				if h.GivenUp && during.Err() == nil {
					unalive <- h.Reason
					cancel()
				}
			})
		})
	}
	_, err := a.runtime.Wait(during, a.t.ID)
	given := during.Err() != nil
	cancel()
	checks.Wait() // nothing is said of the task's health from here on
	switch {
	case ctx.Err() != nil:
	case given:
		a.unalive(ctx, <-unalive)
	case err != nil:
		a.note(err.Error())
		a.rest(ctx, retry)
	}
}

func (a *actor) readiness(h Health) {
	a.update(func(s *api.TaskStatus) {
		s.Ready = h.Healthy
		if s.Message = "not ready: " + h.Reason; h.Healthy {
			s.State, s.Message = api.TaskState_TASK_STATE_RUNNING, ""
		}
	})
}

// unalive ends a task whose liveness check failed; its state is FAILED, so
// that the restart policy gives it a successor.
func (a *actor) unalive(ctx context.Context, reason string) {
	a.w.Logger.Info("a task fails its liveness check", "task", a.t.ID, "reason", reason)
	switch err := a.runtime.Stop(ctx, a.t); {
	case ctx.Err() != nil:
	case err != nil:
		a.note("cannot stop it: " + err.Error())
		a.rest(ctx, retry)
	default:
		a.fail("failed its liveness check: " + reason)
	}
}

func (a *actor) stop(ctx context.Context) {
	a.update(func(s *api.TaskStatus) { s.State, s.Ready, s.Message = api.TaskState_TASK_STATE_STOPPING, false, "" })
	if err := a.runtime.Stop(ctx, a.t); err != nil && ctx.Err() == nil {
		a.note("cannot stop it: " + err.Error())
		a.rest(ctx, retry)
	}
}

// resolve replaces url placeholders by what is right for the task's runtime:
// services have their names on networks; a process reaches them by a port of its
// own node, whatever they are and wherever they run.
func (w *Worker) resolve(t *task.Task) {
	url := func(u api.Url) string {
		host, port := u.Service, itoa(u.Port)
		if t.Spec.Runtime == "process" {
			host = "127.0.0.1"
			if address, ok := w.inside(t.Stack+"/"+u.Service, uint32(u.Port)); ok {
				host, port, _ = net.SplitHostPort(address)
			}
		}
		if u.Scheme == "host" {
			return host
		}
		return u.Scheme + "://" + net.JoinHostPort(host, port)
	}
	for k, v := range t.Spec.Env {
		t.Spec.Env[k] = api.ResolveUrls(v, url)
	}
	for i, v := range t.Spec.Command {
		t.Spec.Command[i] = api.ResolveUrls(v, url)
	}
	for i, v := range t.Spec.Entrypoint {
		t.Spec.Entrypoint[i] = api.ResolveUrls(v, url)
	}
	files := make([]*api.TaskFile, len(t.Files))
	for i, f := range t.Files {
		if files[i] = f; !f.Secret {
			files[i] = &api.TaskFile{Name: f.Name, Path: f.Path, Mode: f.Mode, Content: []byte(api.ResolveUrls(string(f.Content), url))}
		}
	}
	t.Files = files
}

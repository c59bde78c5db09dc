package worker

import (
	"context"
	"strconv"

	"orch/engine/api"
)

func itoa[T int | uint32](n T) string { return strconv.Itoa(int(n)) }

// tell passes on how the tasks here are, whenever that changes.
func (w *Worker) tell(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.routes:
			if w.Local != nil {
				w.Local(w.here())
			}
		}
	}
}

// here is how the tasks are that this agent knows of by itself.
func (w *Worker) here() map[string]Here {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := map[string]Here{}
	for id, a := range w.actors {
		if h, known := a.here(); known {
			all[id] = h
		}
	}
	return all
}

func (a *actor) here() (h Here, known bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	ready := a.status.Ready && a.status.State == api.TaskState_TASK_STATE_RUNNING
	return Here{Address: a.status.Address, Ready: ready, Namespace: a.namespace}, a.told
}

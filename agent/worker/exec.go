package worker

import (
	"context"
	"fmt"
)

// Exec runs a command inside a task, by its id, and kills it when ctx ends.
// output is the last task.MaxOutput bytes of what it printed, also where it
// was killed. It is an error if the task is not on this node or not running,
// or the command could not be run to its end.
func (w *Worker) Exec(ctx context.Context, id string, argv []string) (exit int, output string, err error) {
	w.mu.Lock()
	a := w.actors[id]
	w.mu.Unlock()
	switch {
	case a == nil:
		return -1, "", fmt.Errorf("cannot run %q in task %q: it is not on this node", argv, id)
	case len(argv) == 0:
		return -1, "", fmt.Errorf("cannot run a command in task %q: it is empty", id)
	case a.runtime == nil:
		return -1, "", fmt.Errorf("cannot run %q in task %q: this node has no runtime %q", argv, id, a.t.Spec.Runtime)
	}
	return a.runtime.Exec(ctx, id, argv)
}

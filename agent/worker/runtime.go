package worker

import (
	"context"

	"orch/agent/task"
	"orch/engine/api"
)

// Runtime makes tasks real. All methods are safe for concurrent use, may be
// called again after any failure or restart, and see the same world after a
// restart of the agent: what runs is found by its labels or its folder.
type Runtime interface {
	// Name is what TaskSpec.runtime calls it: "docker" or "process".
	Name() string
	// Facts says whether the runtime can be used now, and its version.
	Facts(ctx context.Context) *api.RuntimeFacts
	// Prepare gets all that Start needs: image, networks, volumes, files.
	// It reports what it is at, for people, through progress.
	Prepare(ctx context.Context, t *task.Task, progress func(string)) error
	// Start makes the task run; one that runs already is left alone.
	Start(ctx context.Context, t *task.Task) (task.Observed, error)
	// Inspect sees one task; Phase is Absent where there is none.
	Inspect(ctx context.Context, id string) (task.Observed, error)
	// Wait returns once the task doesn't run any more.
	Wait(ctx context.Context, id string) (task.Observed, error)
	// Stop sends stop_signal, after stop_grace SIGKILL, to all of the task's
	// processes, and returns once none is left. Absent is no error.
	Stop(ctx context.Context, t *task.Task) error
	// Remove takes away what is left of an ended task: container, files, cgroup,
	// log. Absent is no error.
	Remove(ctx context.Context, id string) error
	// List sees every task of this cluster on this node.
	List(ctx context.Context) ([]task.Observed, error)
	// Exec runs argv inside the task, and kills it when ctx ends; output is the
	// last task.MaxOutput bytes of both streams, with any error too.
	Exec(ctx context.Context, id string, argv []string) (exit int, output string, err error)
	// Logs passes the task's lines to emit, oldest first, until there are no
	// more (Follow: until the task ended) or emit fails.
	Logs(ctx context.Context, id string, opt task.LogOptions, emit func(task.Line) error) error
	// Prune removes networks (and volumes with on_remove = "delete") that were
	// made for stacks which have no task here any more; keep names the stacks
	// that still have one.
	Prune(ctx context.Context, keep map[string]bool) error
}

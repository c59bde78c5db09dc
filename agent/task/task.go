// Package task holds what an agent knows of one task and the pure state
// machine that says what to do next with it. It does nothing itself: the
// worker carries out what Next returns.
package task

import (
	"time"

	"orch/engine/api"
)

// Task is an assignment as runtimes see it: url placeholders are resolved,
// secrets and configs have their content.
type Task struct {
	ID       string // "tick/influxdb.1#3"
	Cluster  string // cluster id, for labels
	Stack    string
	Service  string // name in the stack
	Slot     string // "tick/influxdb.1"
	Version  string
	Spec     *api.TaskSpec
	Files    []*api.TaskFile
	Networks []*api.TaskNetwork // those the task is attached to; never empty
	Volumes  []*api.VolumeSpec  // those its mounts name
	Labels   map[string]string  // of the service
}

// Phase is how far the thing that a runtime made for a task has come.
type Phase int

const (
	Absent  Phase = iota // nothing there
	Created              // made, not started
	Running
	Exited
)

// Observed is what a runtime sees of a task.
type Observed struct {
	TaskID    string
	Version   string
	Phase     Phase
	RuntimeID string // container id, or pid
	Address   string // where the node reaches the task: "172.18.0.3" or "127.0.0.1"
	Namespace string // path of its network namespace; empty: it has none of its own
	StartedAt time.Time
	EndedAt   time.Time
	ExitCode  int    // -1: unknown
	Error     string // what the exit code does not say: "killed: out of memory (limit 64 MiB)"
}

// Line is one line of a task's output, without its newline.
type Line struct {
	Stream string // stdout | stderr
	Time   time.Time
	Text   []byte
}

// LogOptions choose lines of a task's output.
type LogOptions struct {
	Follow bool      // go on until the task's output ends
	Tail   int       // newest lines to begin with; negative: all
	Since  time.Time // zero: from the first kept
}

package process

import (
	"encoding/json"
	"os"
	"path/filepath"
	"time"
)

// launch is all that a shim needs to know.
type launch struct {
	TaskID, Version string
	Argv, Env       []string
	Dir             string // working folder
	UID, GID        int
	Groups          []uint32
	SwitchUser      bool // UID and GID are not ours
	Mounts          []bind
	Links           []string // symlinks put into the working folder
	Cgroup          limits
	StopSignal      int
	Grace           time.Duration
}

// state is which processes a task has.
type state struct {
	Shim, Child process
	StartedAt   time.Time
}

// ending is how a task ended.
type ending struct {
	Code  int // -1: unknown
	Error string
	At    time.Time
}

const (
	launchFile = "launch.json"
	stateFile  = "state.json"
	exitFile   = "exit.json"
)

// save writes v in one step that survives a crash of the host.
func save(dir, name string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, name+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails once renamed
	if _, err = f.Write(text); err == nil {
		err = f.Sync()
	}
	if err2 := f.Close(); err == nil {
		err = err2
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), filepath.Join(dir, name))
}

// load reads what save wrote; os.ErrNotExist where there is none.
func load(dir, name string, v any) error {
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	return json.Unmarshal(text, v)
}

// Package runtimetest is what every worker.Runtime must pass: the promises
// of that interface, each tried on the real thing.
package runtimetest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"orch/agent/task"
	"orch/agent/worker"
	"orch/engine/api"
)

// Fixture is a runtime to be tested.
type Fixture struct {
	Cluster string
	New     func(t *testing.T) worker.Runtime // each call as after a restart of the agent
	Image   string                            // of TaskSpec; empty for runtime process
	Prog    string                            // the program that Build made, as the task sees it
	Limits  bool                              // memory limits can be enforced here
	Root    bool                              // tasks may have another user, mounts and files anywhere
	// Left lists what is left on the host of the cluster after all was removed.
	Left func(t *testing.T) []string
}

// Need skips the test where something it needs is missing, and fails it
// where CI is set: there nothing may be missing.
func Need(t testing.TB, ok bool, what string) {
	t.Helper()
	if ok {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatal("CI lacks what this test needs: " + what)
	}
	t.Skip("this test needs " + what)
}

// Build makes the suite's static test program in a temporary folder.
func Build(t testing.TB) string {
	t.Helper()
	_, here, _, _ := runtime.Caller(0)
	dir := t.TempDir()
	for d := dir; len(d) > len(os.TempDir()); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil { // other users must reach it
			t.Fatal(err)
		}
	}
	prog := filepath.Join(dir, "prog")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", prog, ".")
	cmd.Dir = filepath.Join(filepath.Dir(here), "testdata", "prog")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cannot build the test program: %v\n%s", err, out)
	}
	return prog
}

// Run tries all promises of a runtime.
func Run(t *testing.T, f Fixture) {
	for _, c := range []struct {
		name string
		run  func(*suite)
	}{
		{"exit codes and output", exits}, {"environment and folder", environment},
		{"stop is graceful", graceful}, {"stop kills after the grace", kills},
		{"no process is left", daemons}, {"start and remove twice", twice},
		{"a new agent finds its tasks", adopts}, {"exec", execs},
		{"log: tail and follow", logs}, {"files", files}, {"volumes", volumes},
		{"user", users}, {"out of memory", memory}, {"wait ends with its context", waits},
		{"bad command", badCommand},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &suite{T: t, f: f, rt: f.New(t)}
			t.Cleanup(s.clean)
			c.run(s)
		})
	}
	t.Run("nothing is left", func(t *testing.T) {
		rt := f.New(t)
		if err := rt.Prune(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if left := f.Left(t); len(left) > 0 {
			t.Errorf("left: %q", left)
		}
	})
}

type suite struct {
	*testing.T
	f    Fixture
	rt   worker.Runtime
	made []string
}

// task describes a run of the test program.
func (s *suite) task(steps ...string) *task.Task {
	n := len(s.made) + 1
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' {
			return r
		}
		return '-'
	}, strings.ToLower(s.Name()[strings.LastIndex(s.Name(), "/")+1:]))
	t := &task.Task{
		ID: fmt.Sprintf("suite/%s.1#%d", name, n), Cluster: s.f.Cluster, Stack: "suite", Service: name,
		Slot: "suite/" + name + ".1", Version: "v1",
		Networks: []*api.TaskNetwork{{Spec: &api.NetworkSpec{Name: "default"}}},
		Spec: &api.TaskSpec{
			Runtime: s.rt.Name(), Image: s.f.Image, Pull: "never", Entrypoint: []string{s.f.Prog}, Command: steps,
			StopSignal: "SIGTERM", StopGrace: durationpb.New(10 * time.Second),
		},
	}
	s.made = append(s.made, t.ID)
	return t
}

func (s *suite) clean() {
	ctx := context.Background()
	for _, id := range s.made {
		if err := s.rt.Remove(ctx, id); err != nil {
			s.Error(err)
		}
		if o, err := s.rt.Inspect(ctx, id); err != nil || o.Phase != task.Absent {
			s.Errorf("after Remove: %+v, %v", o, err)
		}
	}
}

func (s *suite) check(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *suite) start(t *task.Task) task.Observed {
	s.Helper()
	s.check(s.rt.Prepare(s.Context(), t, nil))
	o, err := s.rt.Start(s.Context(), t)
	s.check(err)
	return o
}

func (s *suite) wait(id string) task.Observed {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), 20*time.Second)
	defer cancel()
	o, err := s.rt.Wait(ctx, id)
	s.check(err)
	return o
}

// run starts a task, waits for its end and returns its output.
func (s *suite) run(t *task.Task) (task.Observed, string) {
	s.Helper()
	s.start(t)
	o := s.wait(t.ID)
	return o, s.output(t.ID, -1)
}

func (s *suite) output(id string, tail int) string {
	s.Helper()
	var b strings.Builder
	s.check(s.rt.Logs(s.Context(), id, task.LogOptions{Tail: tail}, func(l task.Line) error {
		if l.Time.IsZero() {
			s.Errorf("line %q has no time", l.Text)
		}
		fmt.Fprintf(&b, "%s: %s\n", l.Stream, l.Text)
		return nil
	}))
	return b.String()
}

// ready follows the log until a line says so.
func (s *suite) ready(id, text string) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), 20*time.Second)
	defer cancel()
	found := fmt.Errorf("found")
	err := s.rt.Logs(ctx, id, task.LogOptions{Follow: true, Tail: -1}, func(l task.Line) error {
		if strings.HasPrefix(string(l.Text), text) {
			return found
		}
		return nil
	})
	if err != found {
		s.Fatalf("task never said %q: %v\n%s", text, err, s.output(id, 3))
	}
}

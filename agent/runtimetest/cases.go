package runtimetest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"orch/agent/task"
	"orch/engine/api"
)

func (s *suite) want(what, got, want string) {
	s.Helper()
	if got != want {
		s.Errorf("%s:\ngot  %q\nwant %q", what, got, want)
	}
}

func exits(s *suite) {
	o, out := s.run(s.task("out=hello", "exit=3"))
	if o.Phase != task.Exited || o.ExitCode != 3 || o.Error != "" || o.EndedAt.Before(o.StartedAt) || o.Version != "v1" {
		s.Errorf("observed %+v", o)
	}
	s.want("output", out, "stdout: hello\n")
	_, out = s.run(s.task("err=oops", "exit=0"))
	s.want("output", out, "stderr: oops\n")
}

func environment(s *suite) {
	t := s.task("env=COLOUR", "who")
	t.Spec.Env = map[string]string{"COLOUR": "dark red"}
	t.Spec.Workdir = "/"
	_, out := s.run(t)
	s.want("output", out, "stdout: dark red\nstdout: uid="+uid()+" gid="+uid()+" dir=/\n")
	if os.Getenv("HOME") != "" && strings.Contains(out, os.Getenv("HOME")+"/go") {
		s.Error("the agent's own environment leaked")
	}
}

func uid() string {
	if os.Geteuid() == 0 {
		return "0"
	}
	return "?"
}

func graceful(s *suite) {
	t := s.task("wait")
	o := s.start(t)
	if o.Phase != task.Running || o.Address == "" || o.RuntimeID == "" || o.StartedAt.IsZero() {
		s.Errorf("started %+v", o)
	}
	s.ready(t.ID, "ready")
	s.check(s.rt.Stop(s.Context(), t))
	o = s.wait(t.ID)
	if o.Phase != task.Exited || o.ExitCode != 7 {
		s.Errorf("stopped %+v", o)
	}
	s.want("output", s.output(t.ID, -1), "stdout: ready\nstdout: bye terminated\n")
	usr := s.task("wait")
	usr.Spec.StopSignal = "SIGUSR1"
	s.start(usr)
	s.ready(usr.ID, "ready")
	s.check(s.rt.Stop(s.Context(), usr))
	s.want("output", s.output(usr.ID, 1), "stdout: bye user defined signal 1\n")
	s.check(s.rt.Stop(s.Context(), usr)) // again
}

func kills(s *suite) {
	t := s.task("deaf", "out=deaf", "wait")
	t.Spec.StopGrace = durationpb.New(time.Second)
	s.start(t)
	s.ready(t.ID, "deaf")
	begun := time.Now()
	s.check(s.rt.Stop(s.Context(), t))
	if took := time.Since(begun); took < 900*time.Millisecond || took > 8*time.Second {
		s.Errorf("stop took %v", took)
	}
	if o := s.wait(t.ID); o.ExitCode != 137 {
		s.Errorf("stopped %+v", o)
	}
}

// daemons leaves a deaf grandchild in a session of its own; its mark is a
// word in its arguments that no other process has.
func daemons(s *suite) {
	mark := "/tmp/orch-suite-" + filepath.Base(s.TempDir()) + "-" + s.f.Cluster
	defer os.Remove(mark)
	t := s.task("daemon="+mark, "wait")
	s.f.tmp(t)
	s.start(t)
	s.ready(t.ID, "ready")
	s.check(s.rt.Stop(s.Context(), t))
	cmdlines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range cmdlines {
		if text, _ := os.ReadFile(path); strings.Contains(string(text), mark) {
			s.Errorf("%s is left: %q", path, text)
		}
	}
}

// tmp gives containers, whose image is empty, a /tmp.
func (f Fixture) tmp(t *task.Task) {
	if f.Image != "" {
		t.Spec.Mounts = append(t.Spec.Mounts, &api.Mount{Type: "tmpfs", Target: "/tmp"})
	}
}

func twice(s *suite) {
	t := s.task("wait")
	a := s.start(t)
	b := s.start(t)
	if a.RuntimeID != b.RuntimeID || !a.StartedAt.Equal(b.StartedAt) {
		s.Errorf("started again: %+v, then %+v", a, b)
	}
	s.check(s.rt.Remove(s.Context(), t.ID))
	s.check(s.rt.Remove(s.Context(), t.ID))
	s.check(s.rt.Stop(s.Context(), t))
	ended := s.task("exit=0")
	first, _ := s.run(ended)
	if o := s.start(ended); o.Phase != task.Exited || !o.EndedAt.Equal(first.EndedAt) {
		s.Errorf("an ended task was started again: %+v", o)
	}
}

func adopts(s *suite) {
	t := s.task("wait")
	a := s.start(t)
	other := s.f.New(s.T)
	list, err := other.List(s.Context())
	s.check(err)
	found := false
	for _, o := range list {
		found = found || o.TaskID == t.ID && o.Phase == task.Running && o.RuntimeID == a.RuntimeID && o.Version == "v1"
	}
	if !found {
		s.Fatalf("not in %+v", list)
	}
	if b, err := other.Start(s.Context(), t); err != nil || b.RuntimeID != a.RuntimeID {
		s.Errorf("adopted %+v, %v", b, err)
	}
	s.ready(t.ID, "ready")
	s.check(other.Stop(s.Context(), t))
	if o := s.wait(t.ID); o.ExitCode != 7 {
		s.Errorf("stopped %+v", o)
	}
}

func execs(s *suite) {
	t := s.task("wait")
	t.Spec.Env = map[string]string{"COLOUR": "red"}
	s.start(t)
	code, out, err := s.rt.Exec(s.Context(), t.ID, []string{s.f.Prog, "env=COLOUR", "err=x", "exit=5"})
	// Two streams keep their own order only.
	if code != 5 || out != "red\nx\n" && out != "x\nred\n" || err != nil {
		s.Errorf("exec: %d, %q, %v", code, out, err)
	}
	_, out, err = s.rt.Exec(s.Context(), t.ID, []string{s.f.Prog, "count=10000"})
	if len(out) != task.MaxOutput || !strings.HasSuffix(out, "9999\n") || err != nil {
		s.Errorf("exec kept %d bytes, to the end %q, %v", len(out), out[max(0, len(out)-20):], err)
	}
	if code, out, err = s.rt.Exec(s.Context(), s.made[0]+"0", []string{s.f.Prog, "exit=0"}); err == nil {
		s.Errorf("exec in a task that isn't there: %d, %q", code, out)
	}
	ctx, cancel := context.WithTimeout(s.Context(), 300*time.Millisecond)
	defer cancel()
	if _, out, err = s.rt.Exec(ctx, t.ID, []string{s.f.Prog, "out=so far", "wait"}); !errors.Is(err, context.DeadlineExceeded) || !strings.HasPrefix(out, "so far\n") {
		s.Errorf("exec past its time: %q, %v", out, err)
	}
	s.check(s.rt.Stop(s.Context(), t))
	if _, _, err = s.rt.Exec(s.Context(), t.ID, []string{s.f.Prog, "exit=0"}); err == nil {
		s.Error("exec in an ended task")
	}
}

func logs(s *suite) {
	t := s.task("count=2000", "out="+strings.Repeat("x", 40_000), "wait")
	s.start(t)
	s.ready(t.ID, "ready")
	s.want("tail", s.output(t.ID, 1), "stdout: ready\n")
	if lines := strings.Count(s.output(t.ID, -1), "\n"); lines != 2002 {
		s.Errorf("%d lines", lines)
	}
	s.want("tail 0", s.output(t.ID, 0), "")
	ended := make(chan error, 1)
	var last string
	go func() {
		ended <- s.rt.Logs(context.Background(), t.ID, task.LogOptions{Follow: true, Tail: 1}, func(l task.Line) error {
			last = string(l.Text)
			return nil
		})
	}()
	s.check(s.rt.Stop(s.Context(), t))
	select {
	case err := <-ended:
		s.check(err)
		s.want("last line", last, "bye terminated")
	case <-time.After(10 * time.Second):
		s.Error("following never ended")
	}
	s.check(s.rt.Logs(s.Context(), "suite/none.1#1", task.LogOptions{Follow: true}, nil))
}

func files(s *suite) {
	Need(s.T, s.f.Root, "root")
	const tmpfs = "fs=1021994"
	t := s.task("stat=/run/secrets/key", "cat=/run/secrets/key", "stat=/etc/suite-app/app.conf", "cat=/etc/suite-app/app.conf", "cat=/plain")
	t.Files = []*api.TaskFile{
		{Name: "key", Path: "/run/secrets/key", Mode: 0o400, Content: []byte("s3cret"), Secret: true},
		{Name: "app.conf", Path: "/etc/suite-app/app.conf", Mode: 0o444, Content: []byte("a = 1")},
		{Name: "plain", Path: "/plain", Content: []byte("p")},
	}
	_, out := s.run(t)
	s.want("output", out, "stdout: mode=400 uid=0 "+tmpfs+"\nstdout: s3cret\nstdout: mode=444 uid=0 "+tmpfs+"\nstdout: a = 1\nstdout: p\n")
	for _, path := range []string{"/etc/suite-app", "/plain"} {
		if _, err := os.Stat(path); err == nil {
			s.Errorf("%s is left on the host", path)
		}
	}
}

func volumes(s *suite) {
	Need(s.T, s.f.Root, "root")
	with := func(t *task.Task) *task.Task {
		t.Volumes = []*api.VolumeSpec{{Name: "data", OnRemove: "delete"}}
		t.Spec.Mounts = []*api.Mount{{Type: "volume", Source: "data", Target: "/suite-data"}, {Type: "tmpfs", Target: "/suite-scratch", Size: 1 << 20}}
		return t
	}
	if o, out := s.run(with(s.task("write=/suite-data/x", "write=/suite-scratch/x"))); o.ExitCode != 0 {
		s.Fatalf("%+v %s", o, out)
	}
	_, out := s.run(with(s.task("cat=/suite-data/x", "cat=/suite-scratch/x")))
	for _, line := range []string{"stdout: kept\n", "stderr: open /suite-scratch/x: no such file or directory\n"} {
		if !strings.Contains(out, line) { // two streams have no common order
			s.Errorf("output %q lacks %q", out, line)
		}
	}
}

func users(s *suite) {
	Need(s.T, s.f.Root, "root")
	t := s.task("who", "cat=/run/secrets/key")
	t.Spec.User, t.Spec.Workdir = "1234:1235", "/"
	t.Files = []*api.TaskFile{{Name: "key", Path: "/run/secrets/key", Mode: 0o400, Content: []byte("mine"), Secret: true}}
	_, out := s.run(t)
	s.want("output", out, "stdout: uid=1234 gid=1235 dir=/\nstdout: mine\n")
}

func memory(s *suite) {
	Need(s.T, s.f.Limits, "cgroups")
	t := s.task("alloc=200", "exit=0")
	t.Spec.Resources = &api.Resources{MemoryLimit: 64 << 20}
	o, _ := s.run(t)
	if o.ExitCode != 137 || o.Error != "killed: out of memory (limit 64 MiB)" {
		s.Errorf("observed %+v", o)
	}
}

func waits(s *suite) {
	t := s.task("wait")
	s.start(t)
	ctx, cancel := context.WithTimeout(s.Context(), 100*time.Millisecond)
	defer cancel()
	if o, err := s.rt.Wait(ctx, t.ID); !errors.Is(err, context.DeadlineExceeded) {
		s.Errorf("%+v, %v", o, err)
	}
	if o, err := s.rt.Wait(s.Context(), "suite/none.1#1"); err != nil || o.Phase != task.Absent {
		s.Errorf("%+v, %v", o, err)
	}
}

func badCommand(s *suite) {
	t := s.task()
	t.Spec.Entrypoint = []string{"no-such-program"}
	s.check(s.rt.Prepare(s.Context(), t, nil))
	if _, err := s.rt.Start(s.Context(), t); err == nil || !strings.Contains(err.Error(), "no-such-program") {
		s.Errorf("error is %v", err)
	}
	if o, err := s.rt.Inspect(s.Context(), t.ID); err != nil || o.Phase == task.Running {
		s.Errorf("%+v, %v", o, err)
	}
}

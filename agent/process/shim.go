package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/docker/go-units"
	"golang.org/x/sys/unix"

	"orch/agent/detached"
)

// shimArg is the hidden first argument of a shim; the second is the task's
// folder.
const shimArg = "orch-shim"

// IsShim is whether a program called with args (os.Args) is to be a shim.
func IsShim(args []string) bool { return detached.Is(args, shimArg) }

// ShimMain is the whole life of a shim; it does not return. A program that
// holds a Runtime must call it first in main when IsShim says so.
func ShimMain() {
	detached.Main(func(args []string, up func()) error {
		debug.SetGCPercent(20)
		debug.SetMemoryLimit(16 << 20)
		return shim(args[0], up)
	})
}

// errSupervised says that another shim has the task, perhaps one that was
// started just before its agent was killed.
var errSupervised = errors.New("the task has a supervisor already")

// mark is the entry of the task's environment that tells its processes.
func (l *launch) mark() string {
	for _, e := range l.Env {
		if strings.HasPrefix(e, "ORCH_TASK=") {
			return e
		}
	}
	return "ORCH_TASK=none"
}

// shim runs the task of dir to its end. An error means that it never
// started; nothing of it is left then.
func shim(dir string, up func()) error {
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return errSupervised
	}
	defer lock.Close()
	if load(dir, exitFile, &ending{}) == nil {
		return errors.New("the task has ended already")
	}
	var l launch
	if err := load(dir, launchFile, &l); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("cannot become the reaper of the task: %w", err)
	}
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGCHLD, unix.SIGTERM)
	if load(dir, stateFile, &state{}) == nil {
		// A supervisor before this one was killed while it started the command.
		if err := killAll(context.Background(), func() []int { return marked(l.mark()) }); err != nil {
			return err
		}
	}
	st := state{Shim: processOf(os.Getpid())}
	if err := save(dir, stateFile, st); err != nil {
		return err
	}
	s := supervisor{dir: dir, launch: &l, signals: signals}
	if s.cgroup, err = l.Cgroup.create(); err != nil {
		return err
	}
	if err := s.start(&st); err != nil {
		_ = killAll(context.Background(), s.procs)
		l.Cgroup.remove()
		return err
	}
	up()
	return s.end(s.supervise())
}

type supervisor struct {
	dir     string
	launch  *launch
	signals chan os.Signal
	cgroup  bool // there is one
	child   int
	copied  chan struct{} // closed when the output has ended
}

// start starts the command. Its output goes to pipes that it can read, too:
// so it doesn't die of SIGPIPE when the shim is killed.
func (s *supervisor) start(st *state) error {
	log, err := newLog(s.dir)
	if err != nil {
		return err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	files := []uintptr{null.Fd()}
	var readers []*os.File
	for range 2 {
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		both, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", w.Fd()), os.O_RDWR, 0)
		w.Close()
		if err != nil {
			return err
		}
		defer both.Close()
		readers = append(readers, r)
		files = append(files, both.Fd())
	}
	staging := filepath.Join(s.dir, "mnt")
	if s.child, err = spawn(s.launch, s.cgroup, staging, files); err != nil {
		return err
	}
	st.Child, st.StartedAt = processOf(s.child), time.Now()
	if err := save(s.dir, stateFile, st); err != nil {
		return err
	}
	s.copied = make(chan struct{})
	var copies sync.WaitGroup
	for i, stream := range []string{"stdout", "stderr"} {
		copies.Go(func() { log.copy(stream, readers[i]) })
	}
	go func() { copies.Wait(); close(s.copied) }()
	return nil
}

func (s *supervisor) procs() []int {
	all := descendants(os.Getpid())
	if s.cgroup {
		all = append(all, s.launch.Cgroup.procs()...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// supervise reaps until the command has ended, and stops it on SIGTERM.
func (s *supervisor) supervise() syscall.WaitStatus {
	var kill <-chan time.Time
	for {
		if status, ended := s.reap(); ended {
			return status
		}
		select {
		case sig := <-s.signals:
			if sig == unix.SIGTERM && kill == nil {
				_ = unix.Kill(-s.child, unix.Signal(s.launch.StopSignal))
				kill = time.After(s.launch.Grace)
			}
		case <-kill:
			_ = killAll(context.Background(), s.procs)
		}
	}
}

// reap buries what has ended, and says how the command did.
func (s *supervisor) reap() (status syscall.WaitStatus, ended bool) {
	for {
		var w syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &w, syscall.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		if pid <= 0 {
			return status, ended
		}
		if pid == s.child {
			status, ended = w, true
		}
	}
}

// end kills what the command left behind, and records how it ended.
func (s *supervisor) end(status syscall.WaitStatus) error {
	oom := s.cgroup && s.launch.Cgroup.oomKills() > 0
	_ = killAll(context.Background(), func() []int { s.reap(); return s.procs() })
	select {
	case <-s.copied:
	case <-time.After(2 * time.Second): // held open by a process outside
	}
	e := ending{Code: status.ExitStatus(), At: time.Now()}
	if status.Signaled() {
		e.Code = 128 + int(status.Signal())
		if oom && status.Signal() == unix.SIGKILL {
			e.Error = "killed: out of memory"
			if limit := s.launch.Cgroup.Memory; limit > 0 {
				e.Error += " (limit " + size(limit) + ")"
			}
		}
	}
	if s.cgroup {
		s.launch.Cgroup.remove()
	}
	return save(s.dir, exitFile, e)
}

func size(n int64) string {
	return units.CustomSize("%.4g %s", float64(n), 1024, []string{"B", "KiB", "MiB", "GiB", "TiB"})
}

// launchShim starts a shim for dir and returns once the command runs.
func launchShim(ctx context.Context, dir string) error {
	err := detached.Start(ctx, shimArg, []string{dir}, "GOMAXPROCS=1")
	if err != nil && err.Error() == errSupervised.Error() {
		return errSupervised
	}
	return err
}

package process

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"orch/agent/task"
	"orch/agent/taskfiles"
	"orch/engine/api"
)

// Config says where tasks are kept, and for whom.
type Config struct {
	Cluster    string       // id of the cluster
	Dir        string       // for tasks, logs and volumes; made if missing
	SecretsDir string       // on tmpfs; empty: /run/orch/CLUSTER, else under /dev/shm
	Logger     *slog.Logger // nil: slog.Default()
}

// Runtime implements worker.Runtime with processes of this host.
type Runtime struct {
	cfg   Config
	files *taskfiles.Dir

	mu   sync.Mutex
	busy map[string]*sync.Mutex // by task; one Start, Stop or Remove at a time
}

// New fails if Dir can't be made or SecretsDir is not on tmpfs.
func New(cfg Config) (*Runtime, error) {
	files, err := taskfiles.Open(cfg.SecretsDir, cfg.Cluster)
	if err != nil {
		return nil, err
	}
	if cfg.Dir, err = filepath.Abs(cfg.Dir); err != nil {
		return nil, err
	}
	// 0711: a task's own user must reach its working folder.
	if err := os.MkdirAll(filepath.Join(cfg.Dir, "tasks"), 0o711); err != nil {
		return nil, fmt.Errorf("cannot keep tasks: %w", err)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	return &Runtime{cfg: cfg, files: files, busy: map[string]*sync.Mutex{}}, nil
}

// Name is "process".
func (r *Runtime) Name() string { return "process" }

// Facts gives the kernel's release as the version. It is always usable.
func (r *Runtime) Facts(context.Context) *api.RuntimeFacts {
	var u unix.Utsname
	_ = unix.Uname(&u)
	return &api.RuntimeFacts{Name: "process", Version: "linux " + unix.ByteSliceToString(u.Release[:])}
}

func (r *Runtime) dir(id string) string {
	return filepath.Join(r.cfg.Dir, "tasks", taskfiles.FolderName(id))
}

func (r *Runtime) lock(id string) (unlock func()) {
	r.mu.Lock()
	l := r.busy[id]
	if l == nil {
		l = &sync.Mutex{}
		r.busy[id] = l
	}
	r.mu.Unlock()
	l.Lock()
	return l.Unlock
}

// Prepare makes the task's folder, volumes and files.
func (r *Runtime) Prepare(_ context.Context, t *task.Task, _ func(string)) error {
	defer r.lock(t.ID)()
	return r.prepare(t)
}

func (r *Runtime) prepare(t *task.Task) error {
	dir := r.dir(t.ID)
	if load(dir, launchFile, &launch{}) == nil {
		return nil
	}
	err := check(t.Spec)
	if err == nil {
		err = os.MkdirAll(filepath.Join(dir, "mnt"), 0o711)
	}
	var l *launch
	if err == nil {
		l, err = r.plan(t, dir)
	}
	if err == nil {
		err = save(dir, launchFile, l)
	}
	if err != nil {
		return fmt.Errorf("cannot prepare task %q: %w", t.ID, err)
	}
	return nil
}

// Start returns once the command has been executed.
func (r *Runtime) Start(ctx context.Context, t *task.Task) (task.Observed, error) {
	defer r.lock(t.ID)()
	dir := r.dir(t.ID)
	if o := r.observe(t.ID); o.Phase == task.Running || o.Phase == task.Exited {
		return o, nil
	}
	err := r.prepare(t)
	if err == nil {
		err = launchShim(ctx, dir)
	}
	if errors.Is(err, errSupervised) {
		err = until(ctx, func() bool { return r.observe(t.ID).Phase != task.Created })
	}
	if o := r.observe(t.ID); err != nil && o.Phase != task.Running {
		return o, fmt.Errorf("cannot start task %q: %w", t.ID, err)
	}
	return r.observe(t.ID), nil
}

// Inspect sees one task.
func (r *Runtime) Inspect(_ context.Context, id string) (task.Observed, error) {
	return r.observe(id), nil
}

func (r *Runtime) observe(id string) task.Observed {
	dir := r.dir(id)
	var l launch
	if load(dir, launchFile, &l) != nil {
		return task.Observed{TaskID: id, Phase: task.Absent}
	}
	o := task.Observed{TaskID: id, Version: l.Version, Phase: task.Created}
	var st state
	if load(dir, stateFile, &st) != nil {
		return o
	}
	o.StartedAt, o.RuntimeID = st.StartedAt, strconv.Itoa(st.Child.PID)
	alive := st.Child.PID != 0 && (st.Child.alive() || st.Shim.alive())
	var e ending
	switch ended := load(dir, exitFile, &e) == nil; {
	case ended:
		o.Phase, o.ExitCode, o.Error, o.EndedAt = task.Exited, e.Code, e.Error, e.At
	case alive:
		o.Phase, o.Address = task.Running, "127.0.0.1"
	case st.Child.PID != 0:
		e = ending{Code: -1, Error: "its supervisor was killed, so its exit code is unknown", At: time.Now()}
		if err := save(dir, exitFile, e); err != nil {
			r.cfg.Logger.Warn("cannot record the end of a task", "task", id, "error", err)
		}
		o.Phase, o.ExitCode, o.Error, o.EndedAt = task.Exited, e.Code, e.Error, e.At
	default:
		o.RuntimeID = ""
	}
	return o
}

// Wait takes no thread while it waits.
func (r *Runtime) Wait(ctx context.Context, id string) (task.Observed, error) {
	for {
		o := r.observe(id)
		if o.Phase != task.Running {
			return o, nil
		}
		var st state
		err := load(r.dir(id), stateFile, &st)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		for _, p := range []process{st.Shim, st.Child} { // the shim goes last, unless it was killed
			if err == nil {
				err = p.await(ctx)
			}
		}
		if err != nil {
			return task.Observed{}, err
		}
	}
}

// Stop leaves it to the shim, and sees itself to what a killed or stuck one
// leaves behind.
func (r *Runtime) Stop(ctx context.Context, t *task.Task) error {
	defer r.lock(t.ID)()
	dir := r.dir(t.ID)
	var l launch
	var st state
	if load(dir, launchFile, &l) != nil || load(dir, stateFile, &st) != nil {
		return nil
	}
	fail := func(err error) error { return fmt.Errorf("cannot stop task %q: %w", t.ID, err) }
	patient, cancel := context.WithTimeout(ctx, l.Grace+5*time.Second)
	defer cancel()
	if st.Shim.alive() {
		if err := st.Shim.signal(unix.SIGTERM); err != nil {
			return fail(err)
		}
		_ = st.Shim.await(patient)
	} else if st.Child.alive() {
		_ = unix.Kill(-st.Child.PID, unix.Signal(l.StopSignal))
		grace, cancel := context.WithTimeout(ctx, l.Grace)
		defer cancel()
		_ = st.Child.await(grace)
	}
	if ctx.Err() != nil {
		return fail(ctx.Err())
	}
	if err := r.clear(ctx, &l, st); err != nil {
		return fail(err)
	}
	return nil
}

// clear kills all that is left of a task, the shim first.
func (r *Runtime) clear(ctx context.Context, l *launch, st state) error {
	_ = st.Shim.signal(unix.SIGKILL)
	err := killAll(ctx, func() []int {
		all := append(l.Cgroup.procs(), marked("ORCH_TASK="+r.mark(l.TaskID))...)
		if st.Child.alive() {
			all = append(append(all, st.Child.PID), descendants(st.Child.PID)...)
		}
		slices.Sort(all)
		return slices.Compact(all)
	})
	l.Cgroup.remove()
	return err
}

// Remove kills what still runs.
func (r *Runtime) Remove(ctx context.Context, id string) error {
	defer r.lock(id)()
	dir := r.dir(id)
	var l launch
	if load(dir, launchFile, &l) == nil {
		var st state
		_ = load(dir, stateFile, &st)
		if err := r.clear(ctx, &l, st); err != nil {
			return fmt.Errorf("cannot remove task %q: %w", id, err)
		}
		for _, link := range l.Links {
			_ = os.Remove(link)
		}
	}
	if err := errors.Join(r.files.Remove(id), os.RemoveAll(dir)); err != nil {
		return fmt.Errorf("cannot remove task %q: %w", id, err)
	}
	r.mu.Lock()
	delete(r.busy, id)
	r.mu.Unlock()
	return nil
}

// List sees every task that has a folder.
func (r *Runtime) List(context.Context) ([]task.Observed, error) {
	entries, err := os.ReadDir(filepath.Join(r.cfg.Dir, "tasks"))
	if err != nil {
		return nil, fmt.Errorf("cannot list tasks: %w", err)
	}
	var all []task.Observed
	for _, e := range entries {
		var l launch
		if load(filepath.Join(r.cfg.Dir, "tasks", e.Name()), launchFile, &l) != nil {
			continue
		}
		if o := r.observe(l.TaskID); o.Phase != task.Absent {
			all = append(all, o)
		}
	}
	return all, nil
}

// Exec runs argv as the task's user, in its folder, environment, namespace
// and cgroup, and kills its process group when ctx ends.
func (r *Runtime) Exec(ctx context.Context, id string, argv []string) (int, string, error) {
	fail := func(err error) (int, string, error) {
		return -1, "", fmt.Errorf("cannot run %q in task %q: %w", argv, id, err)
	}
	var l launch
	var st state
	dir := r.dir(id)
	if load(dir, launchFile, &l) != nil || load(dir, stateFile, &st) != nil || !st.Child.alive() {
		return fail(errors.New("it is not running"))
	}
	if len(argv) == 0 {
		return fail(errors.New("no command"))
	}
	var out task.Tail
	var cmd *exec.Cmd
	place := func() error {
		if len(l.Mounts) == 0 {
			return nil
		}
		return enterOf(st.Child)
	}
	err := inside(&l, len(l.Cgroup.procs()) > 0, place, func(attr *syscall.SysProcAttr) error {
		path, err := l.find(argv[0])
		if err != nil {
			return err
		}
		cmd = exec.CommandContext(ctx, path, argv[1:]...)
		cmd.Args[0] = argv[0]
		cmd.Dir, cmd.Env, cmd.SysProcAttr = l.Dir, l.Env, attr
		cmd.Stdout, cmd.Stderr = &out, &out // one writer: os/exec then uses one pipe
		cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
		cmd.WaitDelay = time.Second
		return cmd.Start()
	})
	if err != nil {
		return fail(err)
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return -1, out.String(), ctx.Err()
	case errors.As(err, &exit):
		if exit.ExitCode() < 0 {
			return 128 + int(exit.Sys().(syscall.WaitStatus).Signal()), out.String(), nil
		}
		return exit.ExitCode(), out.String(), nil
	case err != nil:
		return fail(err)
	}
	return 0, out.String(), nil
}

// Logs reads the task's log files.
func (r *Runtime) Logs(ctx context.Context, id string, opt task.LogOptions, emit func(task.Line) error) error {
	running := func() bool { return r.observe(id).Phase == task.Running }
	err := readLog(ctx, r.dir(id), opt, running, emit)
	var path *fs.PathError
	if errors.As(err, &path) {
		return fmt.Errorf("cannot read the log of task %q: %w", id, err)
	}
	return err
}

// Prune removes the volumes with on_remove "delete" of other stacks.
func (r *Runtime) Prune(_ context.Context, keep map[string]bool) error {
	marks, err := filepath.Glob(filepath.Join(r.cfg.Dir, "volumes", "*", ".*.delete"))
	for _, mark := range marks {
		stack := filepath.Dir(mark)
		if keep[filepath.Base(stack)] {
			continue
		}
		name := strings.TrimSuffix(filepath.Base(mark)[1:], ".delete")
		err = errors.Join(err, os.RemoveAll(filepath.Join(stack, name)), os.Remove(mark))
		_ = os.Remove(stack) // with its last volume
	}
	return err
}

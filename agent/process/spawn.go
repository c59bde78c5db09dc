package process

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// inside runs fn on a thread of its own which is in the task's cgroup and in
// the namespace that place gives; the thread ends with fn.
func inside(l *launch, cgroup bool, place func() error, fn func(*syscall.SysProcAttr) error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // not unlocked: the thread is spoilt, and ends
		if unix.Gettid() == os.Getpid() {
			// The main thread would not end. Hold it, so that another is taken.
			defer runtime.UnlockOSThread()
			done <- inside(l, cgroup, place, fn)
			return
		}
		done <- func() error {
			attr := &syscall.SysProcAttr{Setpgid: true}
			if l.SwitchUser {
				attr.Credential = &syscall.Credential{Uid: uint32(l.UID), Gid: uint32(l.GID), Groups: l.Groups}
			}
			if cgroup && unified() {
				dir, err := os.Open(l.Cgroup.dirs()[0])
				if err != nil {
					return err
				}
				defer dir.Close()
				attr.UseCgroupFD, attr.CgroupFD = true, int(dir.Fd())
			} else if cgroup {
				if err := l.Cgroup.join(); err != nil {
					return err
				}
			}
			if err := place(); err != nil {
				return err
			}
			return fn(attr)
		}()
	}()
	return <-done
}

// spawn starts the task's command with the given standard streams.
func spawn(l *launch, cgroup bool, staging string, files []uintptr) (pid int, err error) {
	place := func() error {
		if len(l.Mounts) == 0 {
			return nil
		}
		return enter(l.Mounts, staging)
	}
	err = inside(l, cgroup, place, func(attr *syscall.SysProcAttr) error {
		path, err := l.find(l.Argv[0])
		if err != nil {
			return err
		}
		pid, err = syscall.ForkExec(path, l.Argv, &syscall.ProcAttr{Dir: l.Dir, Env: l.Env, Files: files, Sys: attr})
		if err != nil {
			return fmt.Errorf("cannot run %q: %w", path, err)
		}
		return nil
	})
	return pid, err
}

// find looks a program up as a shell in the task's folder would.
func (l *launch) find(name string) (string, error) {
	if info, err := os.Stat(l.Dir); err != nil || !info.IsDir() {
		return "", fmt.Errorf("working folder %q does not exist", l.Dir)
	}
	if strings.Contains(name, "/") {
		path := name
		if !filepath.IsAbs(path) {
			path = filepath.Join(l.Dir, path)
		}
		if err := executable(path); err != nil {
			return "", fmt.Errorf("cannot run %q: %w", name, err)
		}
		return path, nil
	}
	var search string
	for _, e := range l.Env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			search = v
		}
	}
	for _, dir := range filepath.SplitList(search) {
		if path := filepath.Join(dir, name); executable(path) == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("cannot run %q: no such program on this host's PATH (%s)", name, search)
}

func executable(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return errors.Unwrap(err)
	}
	if info.IsDir() || info.Mode()&0o111 == 0 {
		return unix.EACCES
	}
	return nil
}

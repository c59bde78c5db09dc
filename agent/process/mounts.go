package process

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// bind is one mount in a task's namespace.
type bind struct {
	Source   string // empty: a new tmpfs
	Target   string
	ReadOnly bool
	Size     int64 // bytes, tmpfs only; 0: the kernel's default
}

// enter gives the calling thread, which must be locked and never unlocked, a
// mount namespace of its own with binds in it. staging is an empty folder.
func enter(binds []bind, staging string) error {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("cannot make a mount namespace: %w", err)
	}
	// Slave, not private: what the host unmounts goes here too.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("cannot detach the mount namespace: %w", err)
	}
	e := entering{staging: staging}
	for _, b := range slices.SortedStableFunc(slices.Values(binds), func(a, b bind) int { return len(a.Target) - len(b.Target) }) {
		if err := e.mount(b); err != nil {
			return fmt.Errorf("cannot mount %q: %w", b.Target, err)
		}
	}
	return unix.Chdir("/")
}

type entering struct {
	staging string
	own     []string // folders whose entries exist in this namespace only
}

func (e *entering) mount(b bind) error {
	dir := b.Source == ""
	if !dir {
		info, err := os.Stat(b.Source)
		if err != nil {
			return err
		}
		dir = info.IsDir()
	}
	if err := e.provide(filepath.Clean(b.Target), dir); err != nil {
		return err
	}
	if b.Source == "" {
		opts := "mode=1777"
		if b.Size > 0 {
			opts += fmt.Sprintf(",size=%d", b.Size)
		}
		flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV)
		if b.ReadOnly {
			flags |= unix.MS_RDONLY
		}
		e.own = append(e.own, b.Target)
		return unix.Mount("tmpfs", b.Target, "tmpfs", flags, opts)
	}
	if err := unix.Mount(b.Source, b.Target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	if b.ReadOnly {
		return unix.Mount("", b.Target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
	}
	return nil
}

// provide makes sure that there is something to mount on at target, without
// a trace on the host.
func (e *entering) provide(target string, dir bool) error {
	if _, err := os.Stat(target); err == nil {
		return nil
	}
	base := filepath.Dir(target)
	for {
		info, err := os.Stat(base)
		if err == nil && !info.IsDir() {
			return fmt.Errorf("%q is no folder", base)
		}
		if err == nil {
			break
		}
		base = filepath.Dir(base)
	}
	if real, err := filepath.EvalSymlinks(base); err != nil {
		return err
	} else if !slices.ContainsFunc(e.own, func(o string) bool { return real == o || strings.HasPrefix(real, o+"/") && !e.bound(real) }) {
		if err := e.mirror(real); err != nil {
			return fmt.Errorf("cannot replace %q in the task's namespace: %w", real, err)
		}
	}
	if dir {
		return os.MkdirAll(target, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	f, err := os.Create(target)
	if err != nil {
		return err
	}
	return f.Close()
}

// bound is whether path is on another filesystem than a tmpfs of ours: an
// entry of the host, shown in a mirror.
func (e *entering) bound(path string) bool {
	var at, here unix.Stat_t
	if unix.Stat(path, &at) != nil {
		return false
	}
	for _, o := range e.own {
		if unix.Stat(o, &here) == nil && here.Dev == at.Dev {
			return false
		}
	}
	return true
}

// mirror replaces dir, here, by a tmpfs that shows dir's entries.
func (e *entering) mirror(dir string) error {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return err
	}
	opts := fmt.Sprintf("mode=%o,uid=%d,gid=%d", st.Mode&0o7777, st.Uid, st.Gid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", e.staging, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, opts); err != nil {
		return err
	}
	for _, entry := range entries {
		if err := show(filepath.Join(dir, entry.Name()), filepath.Join(e.staging, entry.Name()), entry); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	e.own = append(e.own, strings.TrimSuffix(dir, "/"))
	if dir != "/" {
		return unix.Mount(e.staging, dir, "", unix.MS_MOVE, "")
	}
	if err := unix.Chdir(e.staging); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil { // see pivot_root(2), "pivot_root(".", ".")"
		return err
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return err
	}
	return unix.Chdir("/")
}

func show(from, to string, entry os.DirEntry) error {
	switch {
	case entry.Type()&os.ModeSymlink != 0:
		link, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(link, to)
	case entry.IsDir():
		if err := os.Mkdir(to, 0o755); err != nil {
			return err
		}
	default:
		f, err := os.Create(to)
		if err != nil {
			return err
		}
		f.Close()
	}
	return unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, "")
}

// enterOf moves the calling thread, which must be locked and never
// unlocked, into the mount namespace of p.
func enterOf(p process) error {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", p.PID))
	if err != nil {
		return err
	}
	defer ns.Close()
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	return unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS)
}

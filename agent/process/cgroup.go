package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// limits is a task's cgroup and what it may use; zero means no limit.
type limits struct {
	Name   string // under the cgroup "orch"
	CPU    int64  // thousandths of a CPU
	Memory int64  // bytes
	Pids   int64
}

func (l limits) any() bool { return l.CPU > 0 || l.Memory > 0 || l.Pids > 0 }

const (
	cgroupRoot = "/sys/fs/cgroup"
	cpuPeriod  = 100_000 // microseconds
)

// unified is whether cgroups are of version 2 (see cgroups(7)).
func unified() bool {
	var st unix.Statfs_t
	return unix.Statfs(cgroupRoot, &st) == nil && int64(st.Type) == unix.CGROUP2_SUPER_MAGIC
}

// dirs are the folders that make up the cgroup: one for version 2, one for
// each controller for version 1.
func (l limits) dirs() []string {
	if unified() {
		return []string{filepath.Join(cgroupRoot, "orch", l.Name)}
	}
	var all []string
	for _, c := range []string{"pids", "memory", "cpu"} {
		if _, err := os.Stat(filepath.Join(cgroupRoot, c, "cgroup.procs")); err == nil {
			all = append(all, filepath.Join(cgroupRoot, c, "orch", l.Name))
		}
	}
	return all
}

// create makes the cgroup. Without limits it only helps to find processes,
// so that it can't be made is then no error: made says which.
func (l limits) create() (made bool, err error) {
	dirs := l.dirs()
	if len(dirs) == 0 {
		err = errors.New("this host has no cgroups")
	}
	for _, dir := range dirs {
		for range 5 { // another task's removal may take the parent away
			if err = os.MkdirAll(dir, 0o755); !errors.Is(err, os.ErrNotExist) {
				break
			}
		}
		if err != nil {
			break
		}
	}
	if err == nil {
		err = l.set()
	}
	if err != nil {
		l.remove()
		if l.any() {
			return false, fmt.Errorf("limits of cpu, memory or pids need cgroups, which can't be used here (run as root): %w", err)
		}
		return false, nil
	}
	return true, nil
}

func (l limits) set() error {
	if unified() {
		if l.any() {
			for _, dir := range []string{cgroupRoot, filepath.Join(cgroupRoot, "orch")} {
				if err := put(dir, "cgroup.subtree_control", "+cpu +memory +pids"); err != nil {
					return err
				}
			}
		}
		return errors.Join(
			l.put(l.CPU, "", "cpu.max", fmt.Sprintf("%d %d", l.CPU*cpuPeriod/1000, cpuPeriod)),
			l.put(l.Memory, "", "memory.max", strconv.FormatInt(l.Memory, 10)),
			l.put(l.Pids, "", "pids.max", strconv.FormatInt(l.Pids, 10)))
	}
	return errors.Join(
		l.put(l.CPU, "cpu", "cpu.cfs_quota_us", strconv.FormatInt(l.CPU*cpuPeriod/1000, 10)),
		l.put(l.Memory, "memory", "memory.limit_in_bytes", strconv.FormatInt(l.Memory, 10)),
		l.put(l.Pids, "pids", "pids.max", strconv.FormatInt(l.Pids, 10)))
}

func (l limits) put(limit int64, controller, file, value string) error {
	if limit <= 0 {
		return nil
	}
	return put(filepath.Join(cgroupRoot, controller, "orch", l.Name), file, value)
}

func put(dir, file, value string) error {
	return os.WriteFile(filepath.Join(dir, file), []byte(value), 0o644)
}

// join moves the calling thread there, and with it what it forks
// (version 1). For version 2 use fd.
func (l limits) join() error {
	for _, dir := range l.dirs() {
		if err := put(dir, "tasks", strconv.Itoa(unix.Gettid())); err != nil {
			return fmt.Errorf("cannot join cgroup: %w", err)
		}
	}
	return nil
}

// procs are the processes whose first thread is there. Version 1's
// cgroup.procs would also name one of which any other thread is: this very
// program, while it starts something in there (join).
func (l limits) procs() []int { return l.procsBut(os.Getpid()) }

func (l limits) procsBut(but int) []int {
	dirs := l.dirs() // all controllers hold the same processes
	if len(dirs) == 0 {
		return nil
	}
	file := "tasks"
	if unified() {
		file = "cgroup.procs"
	}
	var all []int
	text, _ := os.ReadFile(filepath.Join(dirs[0], file))
	for _, f := range strings.Fields(string(text)) {
		pid, _ := strconv.Atoi(f)
		if s, ok := readStat(pid); ok && s.state != 'Z' && pid != but && leads(pid) {
			all = append(all, pid)
		}
	}
	return all
}

// leads says that a thread is the first of its process.
func leads(tid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(text), "\nTgid:")
	line, _, _ := strings.Cut(rest, "\n")
	tgid, err := strconv.Atoi(strings.TrimSpace(line))
	return err == nil && tgid == tid
}

// oomKills counts the processes that the memory limit has cost.
func (l limits) oomKills() int {
	file := filepath.Join(cgroupRoot, "memory", "orch", l.Name, "memory.oom_control")
	if unified() {
		file = filepath.Join(cgroupRoot, "orch", l.Name, "memory.events")
	}
	text, _ := os.ReadFile(file)
	for line := range strings.Lines(string(text)) {
		if n, ok := strings.CutPrefix(line, "oom_kill "); ok {
			count, _ := strconv.Atoi(strings.TrimSpace(n))
			return count
		}
	}
	return 0
}

// remove takes the cgroup away, and "orch" with the last one. What was
// killed stays in it until its parent or init has reaped it: remove waits up
// to 2 s for that.
func (l limits) remove() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	for _, dir := range l.dirs() {
		_ = until(ctx, func() bool { return !errors.Is(unix.Rmdir(dir), unix.EBUSY) })
		_ = unix.Rmdir(filepath.Dir(dir))
	}
}

package hosts

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Processes are those of the host, containers' aside, whose executable has one
// of these names (`orch` and not a path). Where the first argument begins with
// "orch-", which is how orch calls children that outlive it, that is the name.
// Their numbers are the machine's, not the host's.
func (h *Host) Processes(names ...string) ([]int, error) {
	inside, err := h.inside()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(inside, func(pid int) bool {
		program, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)) // one that ended has none
		name := filepath.Base(strings.TrimSuffix(program, " (deleted)"))
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if args := strings.Split(string(line), "\x00"); len(args) > 1 && strings.HasPrefix(args[1], "orch-") {
			name = args[1]
		}
		return err != nil || !slices.Contains(names, name)
	}), nil
}

// inside lists the host's processes, containers' and its first aside.
func (h *Host) inside() ([]int, error) {
	own, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", h.ns.pid))
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var all []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == h.ns.pid {
			continue
		}
		if in, err := os.Readlink(filepath.Join("/proc", e.Name(), "ns/pid")); err == nil && in == own {
			all = append(all, pid)
		}
	}
	return all, nil
}

// Signal sends to each of Processes(names...). That there is none is an error.
func (h *Host) Signal(signal syscall.Signal, names ...string) error {
	all, err := h.Processes(names...)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return fmt.Errorf("no %s runs on %s", strings.Join(names, ", "), h.Name)
	}
	for _, pid := range all {
		if err := syscall.Kill(pid, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("cannot signal process %d: %w", pid, err)
		}
		if signal == syscall.SIGCONT {
			wakeParent(pid)
		}
	}
	return nil
}

// wakeParent continues the process outside that waits for a Command's, and
// stops when that one does. Whoever stays stopped reaps nothing, and a host
// ends only once all its processes are reaped.
func wakeParent(pid int) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return // it ended
	}
	for line := range strings.Lines(string(content)) {
		rest, ok := strings.CutPrefix(line, "PPid:")
		if !ok {
			continue
		}
		parent, _ := strconv.Atoi(strings.TrimSpace(rest))
		if program, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", parent)); err == nil && filepath.Base(program) == "nsenter" {
			_ = syscall.Kill(parent, syscall.SIGCONT) // it may have ended
		}
	}
}

// KillAll is a crash of Processes(names...).
func (h *Host) KillAll(names ...string) error { return h.Signal(syscall.SIGKILL, names...) }

// Memory is the resident memory of Processes(names...), in bytes. What several
// processes of one program have mapped of its file counts once, as it is there
// once.
func (h *Host) Memory(names ...string) (uint64, error) {
	all, err := h.Processes(names...)
	if err != nil {
		return 0, err
	}
	var sum uint64
	files := map[string]uint64{}
	for _, pid := range all {
		program, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		if err != nil {
			continue // it ended
		}
		own, file, err := resident(pid)
		if err != nil {
			return 0, err
		}
		sum += own
		files[program] = max(files[program], file)
	}
	for _, n := range files {
		sum += n
	}
	return sum, nil
}

// resident is what a process has in memory of its own, and of files, in bytes;
// nothing if it has ended.
func resident(pid int) (own, file uint64, err error) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, nil
	}
	for line := range strings.Lines(string(content)) {
		key, rest, _ := strings.Cut(line, ":")
		if key != "RssAnon" && key != "RssShmem" && key != "RssFile" {
			continue
		}
		kb, err := strconv.ParseUint(strings.Fields(rest)[0], 10, 64)
		if err != nil {
			return 0, 0, err
		}
		if key == "RssFile" {
			file = kb << 10
		} else {
			own += kb << 10
		}
	}
	return own, file, nil
}

package process

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// process names a process beyond the reuse of its id.
type process struct {
	PID   int
	Start uint64 // field 22 of /proc/PID/stat: clock ticks since boot
}

// stat is what we read of /proc/PID/stat (proc(5)).
type stat struct {
	state  byte
	parent int
	start  uint64
}

func readStat(pid int) (s stat, ok bool) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return s, false
	}
	// The name in parentheses may hold anything; fields go on after the last.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 20 {
		return s, false
	}
	s.state = fields[0][0]
	s.parent, _ = strconv.Atoi(fields[1])
	s.start, err = strconv.ParseUint(fields[19], 10, 64)
	return s, err == nil
}

func processOf(pid int) process {
	s, _ := readStat(pid)
	return process{pid, s.start}
}

// alive is false for zombies too.
func (p process) alive() bool {
	if p.PID == 0 {
		return false
	}
	s, ok := readStat(p.PID)
	return ok && s.start == p.Start && s.state != 'Z' && s.state != 'X'
}

// signal reaches p and never a process that has its id since.
func (p process) signal(sig unix.Signal) error {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err != nil {
		return ignoreGone(err)
	}
	defer unix.Close(fd)
	if !p.alive() {
		return nil
	}
	return ignoreGone(unix.PidfdSendSignal(fd, sig, nil, 0))
}

func ignoreGone(err error) error {
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// await returns once p is gone or ctx ends. The runtime's poller waits, so
// no thread does.
func (p process) await(ctx context.Context) error {
	fd, err := unix.PidfdOpen(p.PID, unix.PIDFD_NONBLOCK)
	if err != nil || !p.alive() {
		if err == nil {
			unix.Close(fd)
		}
		return ctx.Err()
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	defer f.Close()
	raw, err := f.SyscallConn()
	if err != nil || f.SetReadDeadline(time.Time{}) != nil {
		return until(ctx, func() bool { return !p.alive() })
	}
	defer context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })()
	err = raw.Read(func(fd uintptr) bool {
		n, _ := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return n > 0
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// until asks done again, soon at first and then each 50 ms.
func until(ctx context.Context, done func() bool) error {
	for pause := time.Millisecond; !done(); pause = min(2*pause, 50*time.Millisecond) {
		again := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			again.Stop()
			return ctx.Err()
		case <-again.C:
		}
	}
	return nil
}

// pids lists the processes of this host.
func pids() []int {
	var all []int
	names, _ := filepath.Glob("/proc/[0-9]*")
	for _, n := range names {
		if pid, err := strconv.Atoi(filepath.Base(n)); err == nil {
			all = append(all, pid)
		}
	}
	return all
}

// descendants lists the living processes below roots, without them.
func descendants(roots ...int) []int {
	children, zombie := map[int][]int{}, map[int]bool{}
	for _, pid := range pids() {
		if s, ok := readStat(pid); ok {
			children[s.parent] = append(children[s.parent], pid)
			zombie[pid] = s.state == 'Z' || s.state == 'X'
		}
	}
	var all []int
	for next := slices.Clone(roots); len(next) > 0; next = next[1:] {
		for _, pid := range children[next[0]] {
			next = append(next, pid)
			if !zombie[pid] {
				all = append(all, pid)
			}
		}
	}
	return all
}

// marked lists the living processes that carry a task's mark in their
// environment: how they are found when neither shim nor cgroup leads there.
func marked(mark string) []int {
	var all []int
	for _, pid := range pids() {
		env, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
		if err != nil || !bytes.Contains(append([]byte{0}, env...), []byte("\x00"+mark+"\x00")) {
			continue
		}
		if s, ok := readStat(pid); ok && s.state != 'Z' {
			all = append(all, pid)
		}
	}
	return all
}

// killAll sends SIGKILL to what list finds until it finds nothing.
func killAll(ctx context.Context, list func() []int) error {
	return until(ctx, func() bool {
		found := list()
		for _, pid := range found {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		return len(found) == 0
	})
}

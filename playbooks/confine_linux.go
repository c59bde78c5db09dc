package playbooks

import (
	"os/exec"
	"syscall"
)

// limitMemory bounds what this process may allocate. RLIMIT_DATA counts
// private writable memory, which is what Go's heap is; RLIMIT_AS would count
// the addresses that Go reserves and keep it from starting.
func limitMemory(bytes uint64) error {
	if raceEnabled {
		return nil // the race detector's shadow memory is far larger
	}
	return syscall.Setrlimit(syscall.RLIMIT_DATA, &syscall.Rlimit{Cur: bytes, Max: bytes})
}

// confine makes a child end with its parent.
func confine(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

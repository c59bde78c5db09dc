package playbooks

import (
	"os/exec"
	"runtime"
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

// start starts a child that ends with its parent. What the system looks at
// for that is the thread that forked (golang/go#27505), which others of this
// program may end: so it is one that does nothing else until done is called,
// after the child has ended.
func start(cmd *exec.Cmd) (done func(), err error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started, ended := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			<-ended
		}
	}()
	if err := <-started; err != nil {
		return func() {}, err
	}
	return func() { close(ended) }, nil
}

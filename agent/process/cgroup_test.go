package process

import (
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"
)

// A thread that is in a task's cgroup only to start something there doesn't
// make this program one of the task's processes: those get killed.
func TestAThreadInTheCgroupIsNoneOfItsProcesses(t *testing.T) {
	if os.Geteuid() != 0 || unified() {
		t.Skip("needs root and cgroups of version 1: with version 2 no thread joins")
	}
	l := limits{Name: "test-threads"}
	if made, err := l.create(); err != nil || !made {
		t.Skipf("no cgroup can be made: %v", err)
	}
	t.Cleanup(l.remove)
	cmd := exec.Command("sleep", "1000")
	var got []int
	err := inside(&launch{Cgroup: l}, true, func() error { return nil }, func(*syscall.SysProcAttr) error {
		if err := cmd.Start(); err != nil {
			return err
		}
		got = l.procsBut(0) // as another process, such as the task's shim, sees it
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if slices.Contains(got, os.Getpid()) {
		t.Errorf("this program, %d, is among %v", os.Getpid(), got)
	}
	if !slices.Contains(got, cmd.Process.Pid) {
		t.Errorf("the process that was started there, %d, isn't among %v", cmd.Process.Pid, got)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

package process_test

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"orch/agent/process"
	"orch/agent/runtimetest"
	"orch/agent/task"
	"orch/engine/api"
)

// TestShimKilled kills the supervisor: the command goes on, is seen, and its
// end is known but for the exit code.
func TestShimKilled(t *testing.T) {
	runtimetest.Need(t, os.Geteuid() == 0, "root")
	secrets, err := os.MkdirTemp("/dev/shm", "orch-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(secrets)
	rt, err := process.New(process.Config{Cluster: secrets, Dir: t.TempDir(), SecretsDir: secrets})
	if err != nil {
		t.Fatal(err)
	}
	tk := &task.Task{ID: "s/web.1#1", Stack: "s", Spec: &api.TaskSpec{Command: []string{"sleep", "1000"}}}
	o, err := rt.Start(t.Context(), tk)
	if err != nil {
		t.Fatal(err)
	}
	defer rt.Remove(t.Context(), tk.ID)
	out, err := exec.Command("ps", "-o", "ppid=,rss=", "-p", o.RuntimeID).Output()
	if err != nil {
		t.Fatal(err)
	}
	shim, _ := strconv.Atoi(strings.Fields(string(out))[0])
	status, _ := os.ReadFile("/proc/" + strconv.Itoa(shim) + "/status")
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "VmRSS") || strings.HasPrefix(line, "RssAnon") {
			t.Log("shim ", strings.TrimSpace(line))
		}
	}
	if err := syscall.Kill(shim, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if o, err := rt.Inspect(t.Context(), tk.ID); err != nil || o.Phase != task.Running {
		t.Fatalf("%+v, %v", o, err)
	}
	if err := rt.Stop(t.Context(), tk); err != nil {
		t.Fatal(err)
	}
	o, err = rt.Wait(t.Context(), tk.ID)
	if err != nil || o.Phase != task.Exited || o.ExitCode != -1 {
		t.Errorf("%+v, %v", o, err)
	}
}

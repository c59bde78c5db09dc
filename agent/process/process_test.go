package process_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"orch/agent/process"
	"orch/agent/runtimetest"
	"orch/agent/worker"
)

func TestMain(m *testing.M) {
	if process.IsShim(os.Args) {
		process.ShimMain()
	}
	os.Exit(m.Run())
}

var _ worker.Runtime = (*process.Runtime)(nil)

func TestConformance(t *testing.T) {
	runtimetest.Need(t, os.Geteuid() == 0, "root")
	prog := runtimetest.Build(t)
	dir := t.TempDir()
	for d := dir; len(d) > len(os.TempDir()); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	secrets, err := os.MkdirTemp("/dev/shm", "orch-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(secrets) })
	cluster := filepath.Base(secrets)
	runtimetest.Run(t, runtimetest.Fixture{
		Cluster: cluster, Prog: prog, Limits: true, Root: true,
		New: func(t *testing.T) worker.Runtime {
			rt, err := process.New(process.Config{Cluster: cluster, Dir: dir, SecretsDir: secrets})
			if err != nil {
				t.Fatal(err)
			}
			return rt
		},
		Left: func(t *testing.T) []string {
			var left []string
			for _, pattern := range []string{dir + "/tasks/*", dir + "/volumes/*", secrets + "/*", "/sys/fs/cgroup/*/orch/suite-*", "/sys/fs/cgroup/orch/suite-*", "/sys/fs/cgroup/*/orch/" + cluster + "*"} {
				found, _ := filepath.Glob(pattern)
				left = append(left, found...)
			}
			mounts, err := os.ReadFile("/proc/mounts")
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(string(mounts)) {
				if strings.Contains(line, dir) {
					left = append(left, line)
				}
			}
			cmdlines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
			for _, path := range cmdlines {
				if text, _ := os.ReadFile(path); strings.Contains(string(text), dir) {
					left = append(left, path)
				}
			}
			return left
		},
	})
}

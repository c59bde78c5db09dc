package hosts

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func up(t *testing.T, n int, o Options) *Set {
	t.Helper()
	if testing.Short() {
		t.Skip("hosts take seconds")
	}
	if err := Missing(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	s, err := Up(t.Context(), n, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		left, _ := filepath.Glob("/sys/fs/cgroup/*/" + s.name)
		if _, err := net.InterfaceByName("orchsw" + strings.Split(s.name, "-")[3]); err == nil || len(left) > 0 {
			t.Errorf("left behind: %v, or the link", left)
		}
	})
	return s
}

func (h *Host) must(t *testing.T, words ...string) string {
	t.Helper()
	cmd := h.Command(t.Context(), words[0], words[1:]...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(words, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

func reaches(from, to *Host) bool {
	// sshd listens there: bash needs no ping, which needs a package.
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return from.Command(ctx, "bash", "-c", "exec 3<>/dev/tcp/"+to.Name+"/22").Run() == nil
}

func TestHosts(t *testing.T) {
	t.Parallel()
	s := up(t, 3, Options{Docker: true, SSH: true})
	if err := s.Load(t.Context(), "hosts-test/server:1"); err != nil {
		t.Fatal(err)
	}
	a, b := s.Hosts[0], s.Hosts[1]
	t.Run("reach each other by name until one is cut off", func(t *testing.T) {
		if !reaches(a, b) || !reaches(b, a) {
			t.Fatal("they don't")
		}
		if err := b.Cut(); err != nil {
			t.Fatal(err)
		}
		if reaches(a, b) || reaches(b, a) {
			t.Error("a host that was cut off is reached")
		}
		if err := b.Heal(); err != nil {
			t.Fatal(err)
		}
		for !reaches(a, b) && t.Context().Err() == nil {
			continue
		}
	})
	t.Run("each have a Docker of their own", func(t *testing.T) {
		for _, h := range s.Hosts {
			id := h.must(t, "docker", "run", "-d", "-p", "8080:8888", "-e", "TAG="+h.Name, "hosts-test/server:1")
			if got := h.must(t, "docker", "ps", "-q", "--no-trunc"); got != id {
				t.Errorf("%s runs %q, want %q", h.Name, got, id)
			}
			out, err := exec.CommandContext(t.Context(), "docker", "-H", "unix://"+h.Docker, "ps", "-q", "--no-trunc").CombinedOutput()
			if got := strings.TrimSpace(string(out)); err != nil || got != id {
				t.Errorf("from outside %s runs %q, want %q: %v", h.Name, got, id, err)
			}
			for got := ""; !strings.HasSuffix(got, "\n"+h.Name+"\n"); {
				if r, err := http.Get("http://" + h.Addr + ":8080/"); err == nil {
					content, _ := io.ReadAll(r.Body)
					_ = r.Body.Close()
					got = string(content)
				}
			}
		}
	})
	t.Run("let root log in", func(t *testing.T) {
		for _, h := range s.Hosts {
			out, err := exec.CommandContext(t.Context(), "ssh", "-F", "/dev/null", "-i", s.KeyFile(), "-o", "UserKnownHostsFile="+s.KnownHosts(), "-o", "BatchMode=yes",
				"root@"+h.Addr, "hostname; echo $PATH").CombinedOutput()
			if got := string(out); err != nil || got != h.Name+"\n"+path+"\n" {
				t.Errorf("ssh to %s: %v: %q", h.Name, err, got)
			}
		}
	})
	t.Run("share no files that a program would be installed to", func(t *testing.T) {
		for _, dir := range append(append(owned, empty...), "/var/lib/orch", "/etc/systemd", "/run", "/tmp", "/dev/shm", "/root/.ssh") {
			path := filepath.Join(dir, "of-one-host")
			a.must(t, "sh", "-c", "mkdir -p "+dir+"; echo x >"+path)
			b.must(t, "test", "!", "-e", path)
			if _, err := os.Stat(path); err == nil {
				t.Errorf("%s is on the machine", path)
			}
		}
		shared := filepath.Join(s.Dir, "shared")
		a.must(t, "touch", shared)
		b.must(t, "test", "-e", shared)
		if a.must(t, "cat", "/etc/machine-id") == b.must(t, "cat", "/etc/machine-id") {
			t.Error("two hosts have one machine id")
		}
	})
	t.Run("fail at once where there is nothing", func(t *testing.T) {
		began := time.Now()
		if out, err := a.Command(t.Context(), "docker", "pull", "nowhere.example/x:1").CombinedOutput(); err == nil {
			t.Errorf("pulled: %s", out)
		}
		t.Logf("a pull fails after %v", time.Since(began))
	})
}

func TestProcessesOfHosts(t *testing.T) {
	t.Parallel()
	s := up(t, 2, Options{})
	a, b := s.Hosts[0], s.Hosts[1]
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	mine, other := a.Command(ctx, "sleep", "1000"), b.Command(ctx, "sleep", "1000")
	for _, cmd := range []*exec.Cmd{mine, other} {
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
	}
	for _, h := range s.Hosts {
		for {
			if all, err := h.Processes("sleep"); err != nil || len(all) > 1 {
				t.Fatal(all, err)
			} else if len(all) == 1 {
				break
			}
		}
	}
	if m, err := a.Memory("sleep"); err != nil || m == 0 {
		t.Errorf("it takes %d bytes: %v", m, err)
	}
	if err := a.KillAll("sleep"); err != nil {
		t.Error(err)
	}
	if err := mine.Wait(); err == nil {
		t.Error("a process that was killed ended well")
	}
	if all, err := b.Processes("sleep"); err != nil || len(all) != 1 {
		t.Error("the other host's went, too", err)
	}
	cancel()
	_ = other.Wait()
	for {
		if all, err := b.Processes("sleep"); err != nil {
			t.Fatal(err)
		} else if len(all) == 0 {
			break
		}
	}
	if err := a.KillAll("sleep"); err == nil {
		t.Error("nothing was killed, without an error")
	}
	// One that is stopped, as a hung daemon is, holds up nothing at the end.
	stopped := a.Command(context.Background(), "sleep", "1000")
	if err := stopped.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = stopped.Wait() }() // ends with the host
	for a.Signal(syscall.SIGSTOP, "sleep") != nil && t.Context().Err() == nil {
		continue
	}
	for state := ""; !strings.HasPrefix(state, "T"); {
		content, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", stopped.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		_, state, _ = strings.Cut(string(content), "State:\t")
	}
}

// TestHostsEndWithTheirOwner: a test that is killed leaves no process behind,
// and the next sweeps up its files.
func TestHostsEndWithTheirOwner(t *testing.T) {
	if dir := os.Getenv("HOSTS_TEST_OWNER"); dir != "" {
		s, err := Up(t.Context(), 1, Options{Docker: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Load(t.Context(), "hosts-test/server:1"); err != nil {
			t.Fatal(err)
		}
		s.Hosts[0].must(t, "docker", "run", "-d", "--name", "left", "hosts-test/server:1")
		if err := os.WriteFile(filepath.Join(dir, "set"), []byte(s.name+"\n"+s.Dir), 0o600); err != nil {
			t.Fatal(err)
		}
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	t.Parallel()
	dir := t.TempDir()
	up(t, 0, Options{})
	owner := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestHostsEndWithTheirOwner$")
	owner.Env = append(os.Environ(), "HOSTS_TEST_OWNER="+dir)
	out, _ := owner.CombinedOutput()
	content, err := os.ReadFile(filepath.Join(dir, "set"))
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	name, left, _ := strings.Cut(string(content), "\n")
	if _, err := os.Stat(left); err != nil {
		t.Fatal(err)
	}
	if err := Sweep(); err != nil {
		t.Fatal(err)
	}
	if groups, _ := filepath.Glob("/sys/fs/cgroup/*/" + name); len(groups) > 0 {
		t.Errorf("left: %q", groups)
	}
	if _, err := os.Stat(left); err == nil {
		t.Errorf("left: %s", left)
	}
}

func TestHostsBehindNAT(t *testing.T) {
	t.Parallel()
	s := up(t, 3, Options{SSH: true, NAT: 2})
	a, b, c := s.Hosts[0], s.Hosts[1], s.Hosts[2]
	to := func(from *Host, address string) bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		return from.Command(ctx, "bash", "-c", "exec 3<>/dev/tcp/"+address+"/22").Run() == nil
	}
	if !to(b, a.Addr) || !to(c, a.Addr) {
		t.Error("those behind NAT don't get out")
	}
	for _, address := range []string{b.Addr, b.Outside} {
		if to(a, address) || to(c, address) {
			t.Errorf("one behind NAT is reached at %s", address)
		}
	}
}

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// fleet is several hosts of the real program on this machine, each with a
// data folder and a port of its own. Tasks are plain processes.
type fleet struct {
	*testing.T
	dir     string
	address map[string]string // by node name
	word    string            // in the command line of every task
}

func newFleet(t *testing.T) *fleet {
	if testing.Short() {
		t.Skip("runs real daemons: not with -short")
	}
	t.Parallel()
	f := &fleet{T: t, dir: t.TempDir(), address: map[string]string{}, word: fmt.Sprint(960000000 + rand.IntN(1000000))}
	t.Cleanup(func() {
		for name := range f.address {
			f.kill(name)
			if t.Failed() {
				log, _ := os.ReadFile(filepath.Join(f.home(name), "engine.log"))
				t.Logf("%s: engine.log:\n%s", name, log)
			}
		}
		f.eventually("its processes end", func() bool {
			left := append(f.mine(), processes(f.word)...)
			for _, pid := range left {
				if n, err := strconv.Atoi(pid); err == nil {
					_ = syscall.Kill(n, syscall.SIGKILL) // it may have ended
				}
			}
			return len(left) == 0
		})
	})
	return f
}

// mine are the processes that have the fleet's folder in their command line:
// supervisors of tasks.
func (f *fleet) mine() []string {
	var pids []string
	found, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range found {
		if b, err := os.ReadFile(path); err == nil && strings.Contains(string(b), f.dir) {
			pids = append(pids, filepath.Base(filepath.Dir(path)))
		}
	}
	return pids
}

func (f *fleet) home(name string) string { return filepath.Join(f.dir, name) }

// host gives a host an address.
func (f *fleet) host(name string) string {
	f.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	defer l.Close()
	f.address[name] = l.Addr().String()
	return f.address[name]
}

func (f *fleet) command(name string, args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(f.Context(), time.Minute)
	f.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "orch"), args...)
	cmd.Env = append(os.Environ(), "ORCH_HOME="+f.home(name), "ORCH_CONFIG="+filepath.Join(f.dir, "config"), "ORCH_CONTEXT=local")
	cmd.Dir = f.dir
	return cmd
}

// try runs orch on a host.
func (f *fleet) try(name string, args ...string) (string, error) {
	out, err := f.command(name, args...).CombinedOutput()
	return string(out), err
}

// on runs orch on a host, which must succeed.
func (f *fleet) on(name string, args ...string) string {
	f.Helper()
	out, err := f.try(name, args...)
	if err != nil {
		f.Fatalf("%s: orch %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

// refused runs orch on a host, which must fail with words.
func (f *fleet) refused(name, words string, args ...string) {
	f.Helper()
	if out, err := f.try(name, args...); err == nil || !strings.Contains(out, words) {
		f.Errorf("%s: orch %s: %v\n%swant %q", name, strings.Join(args, " "), err, out, words)
	}
}

func (f *fleet) init(name string) {
	f.Helper()
	f.on(name, "cluster", "init", "--name", name, "--advertise", f.host(name))
}

func (f *fleet) token(at, role string) string {
	f.Helper()
	return strings.TrimSpace(f.on(at, "cluster", "token", role, "-q"))
}

func (f *fleet) join(name, at, token string) {
	f.Helper()
	f.on(name, "join", "--name", name, "--advertise", f.host(name), "--token", token, f.address[at])
}

// three makes a cluster of three engines, n1 to n3.
func (f *fleet) three() {
	f.Helper()
	f.init("n1")
	token := f.token("n1", "engine")
	f.join("n2", "n1", token)
	f.join("n3", "n1", token)
	f.voters("n1", "n1", "n2", "n3")
}

// start begins the daemon of a host again.
func (f *fleet) start(name string) {
	f.Helper()
	log, err := os.OpenFile(filepath.Join(f.home(name), "engine.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		f.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(bin, "orch"), "agent") // it outlives the test's context
	cmd.Env = append(os.Environ(), "ORCH_HOME="+f.home(name))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		f.Fatal(err)
	}
	go func() { _ = cmd.Wait() }() // it is killed
}

func (f *fleet) pid(name string) int {
	b, _ := os.ReadFile(filepath.Join(f.home(name), "lock"))
	pid, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return pid
}

// signal sends a signal to a host's daemon and waits until it has ended.
func (f *fleet) signal(name string, s syscall.Signal) {
	f.Helper()
	if pid := f.pid(name); pid > 0 && !free(f.home(name)) {
		_ = syscall.Kill(pid, s) // it may have ended
		f.eventually(name+" ends", func() bool { return free(f.home(name)) })
	}
}

func (f *fleet) kill(name string) { f.Helper(); f.signal(name, syscall.SIGKILL) }

func (f *fleet) eventually(what string, is func() bool) {
	f.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-deadline:
			f.Fatalf("%s: it never came to pass", what)
		}
	}
}

// engines are what a host says of the cluster's, by name.
func (f *fleet) engines(at string) map[string]string {
	out, err := f.command(at, "cluster", "info", "-o", "json").Output()
	if err != nil {
		return nil
	}
	var info struct {
		Engines []struct{ Name, State string }
	}
	if json.Unmarshal(out, &info) != nil {
		return nil
	}
	states := map[string]string{}
	for _, e := range info.Engines {
		states[e.Name] = e.State
	}
	return states
}

// voters waits until the cluster's engines are these, and all vote.
func (f *fleet) voters(at string, names ...string) {
	f.Helper()
	f.eventually("the engines are "+strings.Join(names, ", "), func() bool {
		states := f.engines(at)
		leaders := 0
		for _, name := range names {
			switch states[name] {
			case "leader":
				leaders++
			case "voter":
			default:
				return false
			}
		}
		return leaders == 1 && len(states) == len(names)
	})
}

func (f *fleet) leader(at string) string {
	f.Helper()
	name := ""
	f.eventually("there is a leader", func() bool {
		for n, state := range f.engines(at) {
			if state == "leader" {
				name = n
				return true
			}
		}
		return false
	})
	return name
}

// other is a host that isn't name.
func (f *fleet) other(name string) string {
	if name == "n1" {
		return "n2"
	}
	return "n1"
}

// up waits until nodes are up.
func (f *fleet) up(at string, names ...string) {
	f.Helper()
	f.eventually(strings.Join(names, ", ")+" are up", func() bool {
		out, err := f.try(at, "node", "ls")
		if err != nil {
			return false
		}
		n := 0
		for _, line := range strings.Split(out, "\n") {
			for _, name := range names {
				if strings.HasPrefix(line, name+" ") && strings.Contains(line, " up ") {
					n++
				}
			}
		}
		return n == len(names)
	})
}

// left waits until a host that was removed has forgotten the cluster.
func (f *fleet) left(name string) {
	f.Helper()
	f.eventually(name+" has left by itself", func() bool {
		_, err := os.Stat(filepath.Join(f.home(name), "membership.json"))
		return err != nil && free(f.home(name))
	})
}

// deploy runs a stack of plain processes.
func (f *fleet) deploy(at string, replicas int) {
	f.Helper()
	path := filepath.Join(f.dir, "web.star")
	text := fmt.Sprintf(`stack("web", services = [service("app", runtime = "process", replicas = %d, command = ["sleep", %q], update = rollout(monitor = "50ms"))])`, replicas, f.word)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		f.Fatal(err)
	}
	f.on(at, "run", path)
}

// tasks are those that are wanted, by id: node and pid.
func (f *fleet) tasks(at string) map[string]string {
	f.Helper()
	var all []struct {
		ID     string `json:"id"`
		Node   string `json:"node_id"`
		Status struct {
			State     string `json:"state"`
			Ready     bool   `json:"ready"`
			RuntimeID string `json:"runtime_id"`
		} `json:"status"`
	}
	out, err := f.command(at, "ps", "-o", "json").Output()
	if err != nil {
		f.Fatalf("orch ps: %v", err)
	}
	if err := json.Unmarshal(out, &all); err != nil {
		f.Fatal(err)
	}
	tasks := map[string]string{}
	for _, t := range all {
		if t.Status.Ready {
			tasks[t.ID] = t.Node + " " + t.Status.RuntimeID
		}
	}
	return tasks
}

// same fails if a task was touched.
func (f *fleet) same(when string, before, after map[string]string) {
	f.Helper()
	for id, was := range before {
		if after[id] != was {
			f.Errorf("%s: %s is %q, was %q", when, id, after[id], was)
		}
	}
	if len(after) != len(before) {
		f.Errorf("%s: %d tasks, were %d", when, len(after), len(before))
	}
}

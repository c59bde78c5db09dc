package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"orch/agent/runtimetest"
)

// cluster is the real program with a data folder of its own.
type cluster struct {
	*testing.T
	home   string
	engine *exec.Cmd
	ended  chan error
}

func newCluster(t *testing.T) *cluster {
	if testing.Short() {
		t.Skip("kills real engines: not with -short")
	}
	c := &cluster{T: t, home: t.TempDir()}
	t.Cleanup(func() {
		out, err := c.command("down").CombinedOutput()
		if err != nil && !strings.Contains(string(out), "no cluster runs") {
			t.Errorf("orch down: %v\n%s", err, out)
		}
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(c.home, "engine.log"))
			t.Logf("engine.log:\n%s", log)
		}
	})
	return c
}

func (c *cluster) command(args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(bin, "orch"), args...)
	cmd.Env = append(os.Environ(), "ORCH_HOME="+c.home, "ORCH_CONTEXT=local")
	cmd.Dir = c.home
	return cmd
}

func (c *cluster) orch(args ...string) string {
	c.Helper()
	out, err := c.command(args...).CombinedOutput()
	if err != nil {
		c.Fatalf("orch %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// start runs `orch engine` until kill.
func (c *cluster) start() {
	c.Helper()
	log, err := os.OpenFile(filepath.Join(c.home, "engine.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		c.Fatal(err)
	}
	defer log.Close()
	c.engine = c.command("engine")
	c.engine.Stdout, c.engine.Stderr = log, log
	c.engine.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := c.engine.Start(); err != nil {
		c.Fatal(err)
	}
	c.ended = make(chan error, 1)
	go func(cmd *exec.Cmd, ended chan<- error) { ended <- cmd.Wait() }(c.engine, c.ended)
	c.eventually("the cluster answers", func() bool { return c.command("cluster", "info").Run() == nil })
}

func (c *cluster) kill() {
	c.Helper()
	if err := c.engine.Process.Kill(); err != nil {
		c.Fatal(err)
	}
	<-c.ended
}

// task is one of `orch ps -o json`.
type crashTask struct {
	ID      string `json:"id"`
	Version string `json:"version"`
	Status  struct {
		State     string `json:"state"`
		Ready     bool   `json:"ready"`
		RuntimeID string `json:"runtime_id"`
	} `json:"status"`
}

func (c *cluster) tasks() map[string]crashTask {
	c.Helper()
	var all []crashTask
	out, err := c.command("ps", "-o", "json").Output()
	if err != nil {
		c.Fatalf("orch ps: %v", err)
	}
	if err := json.Unmarshal(out, &all); err != nil {
		c.Fatal(err)
	}
	byID := map[string]crashTask{}
	for _, t := range all {
		byID[t.ID] = t
	}
	return byID
}

func (c *cluster) eventually(what string, is func() bool) {
	c.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-deadline:
			out, _ := c.command("ps", "-a", "-o", "wide").CombinedOutput()
			c.Fatalf("%s: it never came to pass\n%s", what, out)
		}
	}
}

func (c *cluster) write(name, text string) string {
	c.Helper()
	path := filepath.Join(c.home, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		c.Fatal(err)
	}
	return path
}

// releases counts the stack's.
func (c *cluster) releases() int {
	c.Helper()
	var all []struct {
		Number string `json:"number"`
	}
	out, err := c.command("stack", "releases", "crash", "-o", "json").Output()
	if err != nil {
		c.Fatalf("orch stack releases: %v", err)
	}
	if err := json.Unmarshal(out, &all); err != nil {
		c.Fatal(err)
	}
	newest := 0
	for _, r := range all {
		var n int
		fmt.Sscan(r.Number, &n)
		newest = max(newest, n)
	}
	return newest
}

// The engine is killed at any moment, also in the midst of an update. No
// release that was acknowledged is lost, no task that needn't change is
// touched, none runs twice, and all converges in the end.
func TestEngineKilled(t *testing.T) {
	c := newCluster(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	word := fmt.Sprint(980000000 + r.IntN(1000000))
	path := c.write("crash.star", `
word = param("word", default = "w0")
stack("crash", services = [
    service("steady", runtime = "process", replicas = 2, command = ["sleep", "`+word+`"]),
    service("rolled", runtime = "process", replicas = 2, command = ["sh", "-c", "exec sleep `+word+`"], env = {"WORD": word},
        update = rollout(monitor = "50ms")),
])`)
	c.start()
	c.orch("run", path)
	before := c.tasks()
	steady := func(when string) {
		t.Helper()
		for _, id := range []string{"crash/steady.1#1", "crash/steady.2#1"} {
			now := c.tasks()[id]
			if now.Status.RuntimeID != before[id].Status.RuntimeID || now.Status.RuntimeID == "" {
				t.Fatalf("%s: %s was touched: %+v, was %+v", when, id, now, before[id])
			}
		}
	}
	acknowledged := 1
	for round := range 10 {
		when := fmt.Sprintf("round %d", round)
		var updating sync.WaitGroup
		if round%2 == 1 {
			updating.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				cmd := exec.CommandContext(ctx, filepath.Join(bin, "orch"), "run", path, "--set", "word="+fmt.Sprint("w", round))
				cmd.Env = append(os.Environ(), "ORCH_HOME="+c.home, "ORCH_CONTEXT=local")
				out, _ := cmd.CombinedOutput() // the engine dies under it, or not
				if strings.Contains(string(out), "Stack crash: release ") && !strings.Contains(string(out), "unchanged") {
					acknowledged++
				}
			})
		}
		pause := time.NewTimer(time.Duration(r.IntN(300)) * time.Millisecond)
		<-pause.C
		c.kill()
		updating.Wait()
		c.start()
		if n := c.releases(); n < acknowledged {
			t.Fatalf("%s: %d releases, %d were acknowledged", when, n, acknowledged)
		} else {
			acknowledged = n // one may have been committed and not been told of
		}
		steady(when)
	}
	c.eventually("four tasks and no more", func() bool {
		n, versions := 0, map[string]bool{}
		for id, task := range c.tasks() {
			if !task.Status.Ready {
				return false
			}
			if n++; strings.HasPrefix(id, "crash/rolled") {
				versions[task.Version] = true
			}
		}
		return n == 4 && len(versions) == 1
	})
	c.eventually("four processes", func() bool { return len(processes(word)) == 4 })
	var pids []string
	for _, task := range c.tasks() {
		pids = append(pids, task.Status.RuntimeID)
	}
	slices.Sort(pids)
	if len(slices.Compact(pids)) != 4 {
		t.Errorf("pids %q", pids)
	}
	c.orch("down")
	if left := processes(word); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}

// A cluster that was killed and never came back is taken down all the same.
func TestDownAfterKill(t *testing.T) {
	c := newCluster(t)
	word := fmt.Sprint(970000000 + rand.IntN(1000000))
	path := c.write("crash.star", `stack("crash", services = [service("a", runtime = "process", command = ["sleep", "`+word+`"])])`)
	c.start()
	c.orch("run", path)
	c.kill()
	if len(processes(word)) != 1 {
		t.Error("the task ended with the engine")
	}
	c.orch("down")
	if left := processes(word); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}

// The same with containers: a killed engine touches none, and an update that
// it died in is finished by the next.
func TestEngineKilledOnDocker(t *testing.T) {
	c := newCluster(t)
	runtimetest.Need(t, exec.Command("docker", "version").Run() == nil, "Docker's daemon and its command")
	ref := fmt.Sprintf("orch-crash-test-%d:1", os.Getpid())
	load := exec.Command("sh", "-c", `tar -c -C "$0" prog | docker import - "$1"`, filepath.Dir(runtimetest.Build(t)), ref)
	if out, err := load.CombinedOutput(); err != nil {
		t.Fatalf("cannot make the image: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("docker", "image", "rm", "-f", ref).CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	containers := func() []string {
		out, err := exec.Command("docker", "ps", "-a", "-q", "--filter", "ancestor="+ref).Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.Fields(string(out))
	}
	path := c.write("crash.star", `
word = param("word", default = "w0")
stack("crash", services = [
    service("steady", image = "`+ref+`", pull = "never", entrypoint = ["/prog"], command = ["wait"]),
    service("rolled", image = "`+ref+`", pull = "never", entrypoint = ["/prog"], command = ["wait"], env = {"WORD": word}, update = rollout(monitor = "50ms")),
])`)
	c.start()
	c.orch("run", path)
	before := c.tasks()["crash/steady.1#1"].Status.RuntimeID
	for round := range 3 {
		update := c.command("run", path, "--set", fmt.Sprint("word=w", round+1))
		if err := update.Start(); err != nil {
			t.Fatal(err)
		}
		pause := time.NewTimer(time.Duration(100+200*round) * time.Millisecond)
		<-pause.C
		c.kill()
		_ = update.Wait() // the engine died under it
		c.start()
		if now := c.tasks()["crash/steady.1#1"].Status.RuntimeID; now != before || now == "" {
			t.Fatalf("round %d: a container that needn't change was replaced: %s, was %s", round, now, before)
		}
		c.orch("run", path, "--set", fmt.Sprint("word=w", round+1))
	}
	c.eventually("two ready tasks", func() bool {
		n := 0
		for _, task := range c.tasks() {
			if task.Status.Ready {
				n++
			}
		}
		return n == 2 && len(c.tasks()) == 2
	})
	c.orch("down")
	if left := containers(); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}

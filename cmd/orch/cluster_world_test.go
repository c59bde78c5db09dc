package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"orch/cmd/internal/hosts"
)

// world is three hosts, each with its own Docker and address, whose engines
// form a cluster.
type world struct {
	*testing.T
	*hosts.Set
	writes int
	found  map[string]string // how each host's network was before orch
}

const worldImage = "orch-world/server:1"

func newWorld(t *testing.T) *world {
	w := newHosts(t, hosts.Options{Docker: true})
	w.orch(w.Hosts[0], "cluster", "init", "--advertise", w.Hosts[0].Addr)
	token := strings.TrimSpace(w.orch(w.Hosts[0], "cluster", "token", "-q", "engine"))
	for _, h := range w.Hosts[1:] {
		w.orch(h, "join", "--token", token, "--advertise", h.Addr, w.Hosts[0].Addr)
	}
	w.whole()
	return w
}

// newHosts is a world without a cluster.
func newHosts(t *testing.T, o hosts.Options) *world {
	if testing.Short() {
		t.Skip("hosts take seconds: not with -short")
	}
	if err := hosts.Missing(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	set, err := hosts.Up(t.Context(), 3, o)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{T: t, Set: set, found: map[string]string{}}
	for _, h := range w.Hosts {
		w.found[h.Name] = w.networkOf(h)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, h := range w.Hosts {
				log, _ := os.ReadFile(h.Path("/var/lib/orch/engine.log"))
				t.Logf("engine.log of %s:\n%s", h.Name, log[max(0, len(log)-8000):])
			}
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := w.Load(t.Context(), worldImage); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(bin, "orch"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.program(), content, 0o755); err != nil {
		t.Fatal(err)
	}
	return w
}

// on is the world for a subtest.
func (w *world) on(t *testing.T) *world { return &world{T: t, Set: w.Set, found: w.found} }

func (w *world) program() string { return filepath.Join(w.Dir, "orch") }

// programs is a folder on every host's PATH.
func (w *world) programs() string { return filepath.Join(w.Dir, "programs") }

func (w *world) command(h *hosts.Host, args ...string) *exec.Cmd {
	return w.commandFor(w.Context(), h, args...)
}

func (w *world) commandFor(ctx context.Context, h *hosts.Host, args ...string) *exec.Cmd {
	cmd := h.Command(ctx, w.program(), args...)
	cmd.Env = append(cmd.Env, "ORCH_HOME=/var/lib/orch", "ORCH_CONTEXT=local", "PATH="+w.programs()+":"+os.Getenv("PATH"))
	return cmd
}

func (w *world) orch(h *hosts.Host, args ...string) string {
	w.Helper()
	out, err := w.command(h, args...).Output()
	if err != nil {
		said := ""
		if exit := new(exec.ExitError); errors.As(err, &exit) {
			said = string(exit.Stderr)
		}
		w.Fatalf("orch %s on %s: %v\n%s%s", strings.Join(args, " "), h.Name, err, out, said)
	}
	return string(out)
}

func (w *world) eventually(what string, is func() bool) {
	w.Helper()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-deadline.C:
			text := ""
			for _, h := range w.Hosts {
				for _, args := range [][]string{{"cluster", "info"}, {"node", "ls"}, {"ps", "-a", "-o", "wide"}} {
					out, _ := w.command(h, args...).CombinedOutput()
					text += fmt.Sprintf("%s$ orch %s\n%s", h.Name, strings.Join(args, " "), out)
				}
			}
			w.Fatalf("%s: it never came to pass\n%s", what, text)
		}
	}
}

// ask decodes what orch prints as JSON; false if it doesn't answer.
func (w *world) ask(h *hosts.Host, to any, args ...string) bool {
	out, err := w.command(h, append(args, "-o", "json")...).Output()
	return err == nil && json.Unmarshal(out, to) == nil
}

// whole waits until each engine sees one leader and three voters, and all
// nodes are up.
func (w *world) whole() {
	w.Helper()
	w.eventually("three engines, and all nodes up", func() bool {
		for _, h := range w.Hosts {
			var info struct{ Engines []struct{ State string } }
			var nodes []struct{ Status string }
			if !w.ask(h, &info, "cluster", "info") || !w.ask(h, &nodes, "node", "ls") || len(nodes) != 3 {
				return false
			}
			states := map[string]int{}
			for _, e := range info.Engines {
				states[e.State]++
			}
			for _, n := range nodes {
				states[n.Status]++
			}
			if !maps.Equal(states, map[string]int{"leader": 1, "voter": 2, "up": 3}) {
				return false
			}
		}
		return true
	})
}

// leader is the host whose engine leads, then the others.
func (w *world) leader() (*hosts.Host, []*hosts.Host) {
	w.Helper()
	var lead *hosts.Host
	w.eventually("an engine leads", func() bool {
		var info struct {
			Engines []struct{ Name, State string }
		}
		if !w.ask(w.Hosts[0], &info, "cluster", "info") {
			return false
		}
		for _, e := range info.Engines {
			for _, h := range w.Hosts {
				if e.State == "leader" && e.Name == h.Name {
					lead = h
				}
			}
		}
		return lead != nil
	})
	return lead, w.but(lead)
}

func (w *world) but(one *hosts.Host) []*hosts.Host {
	return slices.DeleteFunc(slices.Clone(w.Hosts), func(h *hosts.Host) bool { return h == one })
}

// write tries to change the cluster's state.
func (w *world) write(h *hosts.Host) (string, error) {
	w.writes++
	cmd := w.command(h, "secret", "create", fmt.Sprintf("s-%d-%d", time.Now().UnixNano(), w.writes), "-")
	cmd.Stdin = strings.NewReader("x")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (w *world) deploy(stack, service string) {
	w.Helper()
	path := filepath.Join(w.Dir, stack+".star")
	text := fmt.Sprintf("stack(%q, services = [service(\"web\", image = %q, stop_grace = \"1s\", drain = \"0s\", "+
		"health = health.http(\"/health\", port = 8888, interval = \"200ms\"), %s)])\n", stack, worldImage, service)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		w.Fatal(err)
	}
	w.orch(w.Hosts[0], "run", path)
}

func (w *world) remove(stack string) {
	w.Helper()
	w.orch(w.Hosts[0], "stack", "rm", stack)
	w.eventually("the stack is gone", func() bool { return len(w.containers(stack, w.Hosts...)) == 0 })
}

// containers are a stack's that run on some hosts, by what their Dockers say:
// the host's name of each.
func (w *world) containers(stack string, on ...*hosts.Host) map[string]string {
	w.Helper()
	all := map[string]string{}
	for _, h := range on {
		out, err := exec.CommandContext(w.Context(), "docker", "-H", "unix://"+h.Docker, "ps", "--no-trunc", "--format", "{{.ID}} {{.Names}}").Output()
		if err != nil {
			w.Fatal(err)
		}
		for line := range strings.Lines(string(out)) {
			if id, name, _ := strings.Cut(line, " "); strings.Contains(name, stack) {
				all[id] = h.Name
			}
		}
	}
	return all
}

// start runs a daemon that was killed, as its unit would.
func (w *world) start(h *hosts.Host) {
	w.Helper()
	cmd := w.commandFor(context.Background(), h, "agent")
	if err := cmd.Start(); err != nil {
		w.Fatal(err)
	}
	go func() { _ = cmd.Wait() }() // ends with the host
}

func (w *world) kill(all ...*hosts.Host) {
	w.Helper()
	for _, h := range all {
		if err := h.KillAll("orch"); err != nil {
			w.Fatal(err)
		}
		w.eventually("the daemon is gone", func() bool {
			left, err := h.Processes("orch")
			return err == nil && len(left) == 0
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestClusterOnHosts: three engines, each with an agent, on hosts of their own.
func TestClusterOnHosts(t *testing.T) {
	t.Parallel()
	all := newWorld(t)
	all.deploy("kept", `replicas = 6, reschedule_after = "1h"`)
	kept := all.containers("kept", all.Hosts...)
	spread := map[string]int{}
	for _, host := range kept {
		spread[host]++
	}
	if !maps.Equal(spread, map[string]int{"n1": 2, "n2": 2, "n3": 2}) {
		t.Errorf("six replicas on %v", spread)
	}
	unchanged := func(w *world) {
		w.Helper()
		w.eventually("all of the stack is ready", func() bool {
			var tasks []crashTask
			if !w.ask(w.Hosts[0], &tasks, "ps", "kept") {
				return false
			}
			return len(tasks) == 6 && !slices.ContainsFunc(tasks, func(t crashTask) bool { return !t.Status.Ready })
		})
		if now := w.containers("kept", w.Hosts...); !maps.Equal(now, kept) {
			w.Errorf("containers were %v, and are %v", kept, now)
		}
	}

	for _, part := range []struct {
		name string
		do   func(*world)
	}{
		{"leader cut off: writes are accepted again, nothing restarts", func(w *world) {
			lead, rest := w.leader()
			must(w.T, lead.Cut())
			w.eventually("a write is accepted", func() bool {
				_, err := w.write(rest[0])
				return err == nil
			})
			if out, err := w.write(lead); err == nil {
				w.Errorf("the leader that was cut off accepted a write: %s", out)
			}
			must(w.T, lead.Heal())
			w.whole()
			unchanged(w)
		}},
		{"leader stopped in order: writes go on, nothing restarts", func(w *world) {
			lead, rest := w.leader()
			must(w.T, lead.Signal(syscall.SIGTERM, "orch"))
			w.eventually("a write is accepted", func() bool {
				_, err := w.write(rest[0])
				return err == nil
			})
			w.eventually("the daemon is gone", func() bool {
				left, err := lead.Processes("orch")
				return err == nil && len(left) == 0
			})
			w.start(lead)
			w.whole()
			unchanged(w)
		}},
		{"a rolling update, its leader killed in mid-batch: another one goes on exactly", func(w *world) {
			w.rolledOver(`parallelism = 2, monitor = "1s"`)
			unchanged(w)
		}},
		{"a canary, its leader killed in mid-batch: another one goes on exactly", func(w *world) {
			w.rolledOver(`strategy = canary, params = {"count": 2, "bake": "1s", "parallelism": 2, "monitor": "1s"}`)
			unchanged(w)
		}},
		{"two of three lost: writes say why not, tasks run on, quorum comes back", func(w *world) {
			lead, rest := w.leader()
			w.kill(lead, rest[0])
			w.eventually("a write is refused", func() bool {
				out, err := w.write(rest[1])
				return err != nil && strings.Contains(out, "no leader")
			})
			if now := w.containers("kept", w.Hosts...); !maps.Equal(now, kept) {
				w.Errorf("containers were %v, and are %v", kept, now)
			}
			w.start(lead)
			w.start(rest[0])
			w.whole()
			if out, err := w.write(rest[1]); err != nil {
				w.Errorf("no write with a quorum: %s", out)
			}
			unchanged(w)
		}},
		{"all engines killed and started: tasks are adopted", func(w *world) {
			w.kill(w.Hosts...)
			if now := w.containers("kept", w.Hosts...); !maps.Equal(now, kept) {
				w.Errorf("without orch, containers were %v, and are %v", kept, now)
			}
			for _, h := range w.Hosts {
				w.start(h)
			}
			w.whole()
			unchanged(w)
		}},
		{"node cut off and healed: replaced elsewhere, no duplicates, others untouched", func(w *world) {
			w.deploy("moved", "replicas = 6")
			lead, rest := w.leader()
			out := rest[0]
			others := []*hosts.Host{lead, rest[1]}
			before := w.containers("moved", others...)
			must(w.T, out.Cut())
			w.eventually("all run elsewhere", func() bool { return len(w.containers("moved", others...)) == 6 })
			if n := len(w.containers("moved", out)); n != 2 {
				w.Errorf("%d of 2 tasks run on while their node is cut off", n)
			}
			must(w.T, out.Heal())
			w.whole()
			w.eventually("no duplicates", func() bool { return len(w.containers("moved", w.Hosts...)) == 6 })
			after := w.containers("moved", others...)
			for id := range before {
				if after[id] == "" {
					w.Errorf("container %.12s of a node that was never away was restarted", id)
				}
			}
			unchanged(w)
			w.remove("moved")
		}},
		{"Docker hangs: the node stays up and says so, its tasks stay", func(w *world) {
			lead, rest := w.leader()
			h := rest[0]
			must(w.T, h.Signal(syscall.SIGSTOP, "dockerd"))
			down := false
			w.eventually("it says that Docker does not answer", func() bool {
				var nodes []struct {
					Name, Status string
					Facts        struct{ Runtimes []struct{ Error string } }
				}
				if !w.ask(lead, &nodes, "node", "ls") {
					return false
				}
				said := false
				for _, n := range nodes {
					down = down || n.Status != "up"
					if n.Name == h.Name {
						for _, r := range n.Facts.Runtimes {
							said = said || r.Error != ""
						}
					}
				}
				return said
			})
			must(w.T, h.Signal(syscall.SIGCONT, "dockerd"))
			if down {
				w.Error("a node was down because its Docker hung")
			}
			unchanged(w)
		}},
		{"drain with one replica: its successor is ready before it stops", func(w *world) {
			w.deploy("single", "")
			was := slices.Collect(maps.Values(w.containers("single", w.Hosts...)))[0]
			from := w.Hosts[slices.IndexFunc(w.Hosts, func(h *hosts.Host) bool { return h.Name == was })]
			rest := w.but(from)
			drain := w.command(rest[0], "node", "drain", "--wait", was)
			done := make(chan error, 1)
			go func() { done <- drain.Run() }()
			w.eventually("the node is drained", func() bool {
				var tasks []crashTask
				if w.ask(rest[0], &tasks, "ps", "single") && !slices.ContainsFunc(tasks, func(t crashTask) bool { return t.Status.Ready }) {
					w.Fatalf("there was a moment without a ready one: %v", tasks)
				}
				// Where it was comes first: once it has gone from there, another runs.
				if len(w.containers("single", from)) == 0 && len(w.containers("single", rest...)) == 0 {
					w.Fatal("there was a moment without any")
				}
				select {
				case err := <-done:
					must(w.T, err)
					return true
				default:
					return false
				}
			})
			if left := w.containers("", from); len(left) > 0 {
				w.Errorf("after the drain %d containers run on %s", len(left), was)
			}
			w.orch(w.Hosts[0], "node", "activate", was)
			w.remove("single")
		}},
		{"a network reaches across hosts, and nobody else into it", func(w *world) {
			w.overlay()
		}},
		{"a published port answers on every node, and loses nothing in updates, scaling and drains", func(w *world) {
			w.published()
		}},
		{"a host is lost under load: what was in flight there is all that fails", func(w *world) {
			w.lost()
		}},
		{"tick.star over three hosts, on Docker and as processes", func(w *world) {
			w.tick()
		}},
		{"a host that leaves is as it was found", func(w *world) {
			w.left()
		}},
	} {
		if !t.Run(part.name, func(t *testing.T) { part.do(all.on(t)) }) {
			break
		}
	}
}

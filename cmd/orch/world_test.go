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

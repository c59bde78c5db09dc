package main

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"orch/cmd/internal/hosts"
)

const farText = `stack("far", services = [service("web", image = %q, mode = "global", stop_grace = "1s",
    networks = [network("back")], ports = [port(8888, publish = 9090), port(8888, publish = 9091, protocol = "http")],
    health = health.http("/health", port = 8888, interval = "200ms"))])
`

// get asks from a host, since those behind NAT are only reached from there; text is
// the first word of the answer: the container's id.
func (w *world) get(h *hosts.Host, url string) (text string, ok bool) {
	out, err := h.Command(w.Context(), "curl", "-sf", "-m", "3", url).Output()
	words := strings.Fields(string(out))
	if err != nil || len(words) == 0 {
		return "", false
	}
	return words[0], true
}

// everyOne waits until a URL was answered by a task of each host.
func (w *world) everyOne(h *hosts.Host, url string) {
	w.Helper()
	seen := map[string]bool{}
	w.eventually(h.Name+" is answered by all at "+url, func() bool {
		if text, ok := w.get(h, url); ok {
			seen[text] = true
		}
		return len(seen) == len(w.Hosts)
	})
}

// TestClusterBehindNAT: two of three hosts are each behind a NAT of its own. Both
// reach the first one, which relays between them once it is labelled for that;
// then all reach all, by published ports and on networks.
func TestClusterBehindNAT(t *testing.T) {
	t.Parallel()
	w := newHosts(t, hosts.Options{Docker: true, NAT: 2})
	lead := w.Hosts[0]
	w.orch(lead, "cluster", "init", "--advertise", lead.Addr)
	token := strings.TrimSpace(w.orch(lead, "cluster", "token", "-q", "worker"))
	for _, h := range w.Hosts[1:] {
		w.orch(h, "join", "--token", token, lead.Addr)
	}
	path := filepath.Join(w.Dir, "far.star")
	must(t, os.WriteFile(path, []byte(fmt.Sprintf(farText, worldImage)), 0o644))
	w.orch(lead, "run", path)
	for _, port := range []int{9090, 9091} {
		w.everyOne(lead, fmt.Sprintf("http://127.0.0.1:%d/", port))
	}
	out, err := w.command(lead, "network", "check").CombinedOutput()
	if out = []byte(strings.Join(strings.Fields(string(out)), " ")); err == nil || !strings.Contains(string(out), "n2 n3 mesh WRONG both are behind NAT") || !strings.Contains(string(out), "label a node that both reach with `orch node label NODE relay=yes`") {
		t.Errorf("without a relay: %v\n%s", err, out)
	}
	w.orch(lead, "node", "label", "n3", "relay=yes")
	w.eventually("it is told that one behind NAT can't relay", func() bool {
		out, err := w.command(lead, "network", "check").Output()
		return err != nil && strings.Contains(string(out), "it is labelled relay, but behind NAT itself ("+w.Hosts[2].Outside+")")
	})
	w.orch(lead, "node", "label", "n3", "relay-")
	w.orch(lead, "node", "label", "n1", "relay=yes")
	w.reachFar()
	if out := w.orch(lead, "network", "check"); strings.Contains(out, "WRONG") || strings.Count(out, " mesh ") != 6 || strings.Count(out, " packets ") != 6 {
		t.Errorf("orch network check:\n%s", out)
	}
	if out := w.orch(lead, "node", "inspect", "n2"); !strings.Contains(out, "others see "+w.Hosts[1].Outside) {
		t.Errorf("orch node inspect:\n%s", out)
	}
	must(t, lead.KillAll("orch-ingress")) // what relays begins anew
	w.reachFar()
	far := w.Hosts[2]
	must(t, far.Cut())
	w.eventually("one behind NAT is down", func() bool { return w.states(lead)["down"] == 1 })
	must(t, far.Heal())
	w.eventually("it is up again, and all tasks are ready", func() bool {
		var tasks []crashTask
		return w.states(lead)["up"] == 3 && w.ask(lead, &tasks, "ps", "far") && len(tasks) == 3 && !slices.ContainsFunc(tasks, func(t crashTask) bool { return !t.Status.Ready })
	})
	w.reachFar()
}

// states counts the nodes by their status, as a host sees them.
func (w *world) states(h *hosts.Host) map[string]int {
	var nodes []struct{ Status string }
	all := map[string]int{}
	if w.ask(h, &nodes, "node", "ls") {
		for _, n := range nodes {
			all[n.Status]++
		}
	}
	return all
}

// reachFar waits until each host reaches the tasks of all, by published ports and on
// their network.
func (w *world) reachFar() {
	w.Helper()
	for _, h := range w.Hosts {
		for _, port := range []int{9090, 9091} {
			w.everyOne(h, fmt.Sprintf("http://127.0.0.1:%d/", port))
		}
		var id string
		for c, name := range w.containers("far", h) {
			if name == h.Name {
				id = c
			}
		}
		out, err := h.Command(w.Context(), "docker", "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", id).Output()
		must(w.T, err)
		w.everyOne(h, fmt.Sprintf("http://%s:8888/ask?url=%s", strings.TrimSpace(string(out)), url.QueryEscape("http://web:8888/")))
	}
}

package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"orch/cmd/internal/hosts"
)

// load asks a published port on every host again and again.
type load struct {
	asked, failed atomic.Int64
	slowest       atomic.Int64 // nanoseconds
	mu            sync.Mutex
	why           map[string]int // failures
	answers       map[string]int // by the last line of the body
	stop          context.CancelFunc
	work          sync.WaitGroup
}

// load asks from `each` clients a host; those that keep their connections
// need protocol "http". Every other client sends POST, of which it asks none twice.
func (w *world) load(port, each int, keep bool, on ...*hosts.Host) *load {
	ctx, cancel := context.WithCancel(w.Context())
	l := &load{why: map[string]int{}, answers: map[string]int{}, stop: cancel}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: !keep, MaxIdleConnsPerHost: each, DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext}, Timeout: 40 * time.Second}
	for _, h := range on {
		for i := range each {
			method := []string{http.MethodPost, http.MethodGet}[i%2]
			l.work.Go(func() {
				for ctx.Err() == nil {
					l.ask(ctx, client, method, fmt.Sprintf("http://%s:%d/", h.Addr, port))
				}
			})
		}
	}
	w.Cleanup(func() { l.stop(); l.work.Wait() })
	return l
}

func (l *load) ask(ctx context.Context, client *http.Client, method, url string) {
	request, err := http.NewRequestWithContext(context.WithoutCancel(ctx), method, url, nil)
	if err != nil {
		panic(err)
	}
	began := time.Now()
	var body []byte
	answer, err := client.Do(request)
	if err == nil {
		body, err = io.ReadAll(answer.Body)
		answer.Body.Close()
		if err == nil && answer.StatusCode != http.StatusOK {
			err = fmt.Errorf("status %d", answer.StatusCode)
		}
	}
	l.asked.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.slowest.Store(max(l.slowest.Load(), int64(time.Since(began))))
	if err != nil {
		l.failed.Add(1)
		l.why[err.Error()]++
		return
	}
	lines := strings.Fields(string(body))
	l.answers[lines[len(lines)-1]]++
}

// more waits until so many more requests were answered.
func (w *world) more(l *load, n int64) {
	w.Helper()
	until := l.asked.Load() + n
	w.eventually("requests are answered", func() bool { return l.asked.Load() >= until })
}

// published: a published port answers on every node, also on those without a
// task, and no connection is lost in updates, a rollback, scaling and drains.
func (w *world) published() {
	path := filepath.Join(w.Dir, "front.star")
	must(w.T, os.WriteFile(path, []byte(fmt.Sprintf(`def judged(r):
    """A new task gets half of what comes in, and has to do well with it."""
    r.surge("new", 1)
    r.wait_healthy("new", min_healthy = "100ms")
    r.traffic(new = 50)
    seen = r.analyze(probe.traffic("requests", above = 20), interval = "500ms", count = 20, fail_limit = 18)
    good = r.check(probe.traffic("error_rate", below = 0.001, least = 20))
    swift = r.check(probe.traffic("p99", below = 10))
    if not (seen.ok and good.ok and swift.ok):
        return r.fail("rollback", seen.reason + ", " + good.reason + ", " + swift.reason)
    r.adopt("new")
    r.replace(r.slots())
    r.wait_healthy(r.slots(), min_healthy = "100ms")
    return r.succeed()

stack("front", services = [service("web", image = %q, replicas = param("n", default = 2),
    ports = [port(8888, publish = 9090), port(8888, publish = 9091, protocol = "http"), port(8888, publish = 9092, protocol = "udp")], env = {"TAG": param("tag")}, stop_grace = "1s",
    health = health.http("/health", port = 8888, interval = "100ms"), update = rollout(strategy = judged) if param("judged", default = False) else rollout(parallelism = 1, monitor = "200ms"))])
`, worldImage)), 0o644))
	run := func(args ...string) {
		w.Helper()
		w.orch(w.Hosts[1], append([]string{"run", path}, args...)...)
	}
	run("--set", "tag=v0")
	l, kept := w.load(9090, 3, false, w.Hosts...), w.load(9091, 3, true, w.Hosts...)
	w.more(l, 30)
	w.more(kept, 30)
	for _, h := range w.Hosts {
		if tag := w.datagram(h.Addr, 9092); tag != "v0" {
			w.Errorf("by datagram %s answers %q", h.Name, tag)
		}
	}
	times := func(few, many int) int {
		if os.Getenv("ORCH_SOAK") != "" {
			return many
		}
		return few
	}
	for i := range times(3, 19) {
		run("--set", fmt.Sprintf("tag=v%d", i%3+1))
		w.more(l, 30)
	}
	run("--set", "tag=v4", "--set", "judged=true")
	w.judged()
	for range times(1, 5) {
		w.orch(w.Hosts[2], "stack", "rollback", "front")
		w.more(l, 30)
		run("--set", "tag=v9")
	}
	for i := range times(2, 20) {
		run("--set", "tag=v9", "--set", fmt.Sprintf("n=%d", []int{6, 1}[i%2]))
		w.more(l, 30)
	}
	run("--set", "tag=v9", "--set", "n=4")
	for i := range times(3, 5) {
		h := w.Hosts[i%3]
		w.orch(w.Hosts[0], "node", "drain", "--wait", h.Name)
		w.more(l, 30)
		w.orch(w.Hosts[0], "node", "activate", h.Name)
	}
	for _, h := range w.Hosts {
		w.renewed(h)
		w.more(l, 30)
		w.more(kept, 30)
	}
	for name, l := range map[string]*load{"tcp, a connection each": l, "http, connections kept": kept} {
		l.stop()
		l.work.Wait()
		w.Logf("%s: %d requests, %d failed, answers %v", name, l.asked.Load(), l.failed.Load(), l.answers)
		if l.failed.Load() > 0 {
			w.Errorf("%s: %d of %d requests were lost: %v", name, l.failed.Load(), l.asked.Load(), l.why)
		}
		for _, tag := range []string{"v0", "v1", "v2", "v3", "v4", "v9"} {
			if l.answers[tag] == 0 {
				w.Errorf("%s: nobody answered with %s: %v", name, tag, l.answers)
			}
		}
	}
	w.remove("front")
}

// renewed: orch is killed on a host and begins again as another binary, which
// replaces the process of the published ports.
func (w *world) renewed(h *hosts.Host) {
	w.Helper()
	before, err := h.Processes("orch-ingress")
	must(w.T, err)
	content, err := os.ReadFile(w.program())
	must(w.T, err)
	must(w.T, os.WriteFile(w.program()+".new", content, 0o755))
	must(w.T, os.Rename(w.program()+".new", w.program()))
	w.kill(h)
	w.start(h)
	w.eventually("another process has the published ports", func() bool {
		now, err := h.Processes("orch-ingress")
		return err == nil && slices.ContainsFunc(now, func(pid int) bool { return !slices.Contains(before, pid) })
	})
	w.whole()
}

// lost: a host is cut off while the others are asked. What was in flight there is
// lost, if it can't be asked again; nothing else is, and nobody waits long.
func (w *world) lost() {
	w.Helper()
	path := filepath.Join(w.Dir, "lost.star")
	must(w.T, os.WriteFile(path, []byte(fmt.Sprintf(`stack("lost", services = [service("web", image = %q, replicas = 6, reschedule_after = "1h",
    ports = [port(8888, publish = 9090), port(8888, publish = 9091, protocol = "http")], env = {"TAG": "v1"}, stop_grace = "1s", health = health.http("/health", port = 8888, interval = "100ms"))])
`, worldImage)), 0o644))
	w.orch(w.Hosts[0], "run", path)
	_, rest := w.leader()
	gone := rest[0]
	asked := w.but(gone)
	l, kept := w.load(9090, 4, false, asked...), w.load(9091, 4, true, asked...)
	w.more(l, 300)
	w.more(kept, 300)
	must(w.T, gone.Cut())
	w.eventually("it is given up", func() bool { return w.status(gone) == "down" })
	w.more(l, 300)
	w.more(kept, 300)
	must(w.T, gone.Heal())
	w.whole()
	w.more(l, 300)
	for name, l := range map[string]*load{"tcp, a connection each": l, "http, connections kept": kept} {
		l.stop()
		l.work.Wait()
		w.Logf("%s: %d requests, %d failed: %v; the slowest took %s", name, l.asked.Load(), l.failed.Load(), l.why, time.Duration(l.slowest.Load()))
		// Each client has one request in flight.
		if most := int64(len(asked) * 4); l.failed.Load() > most {
			w.Errorf("%s: %d requests were lost, which is more than were in flight (%d)", name, l.failed.Load(), most)
		}
	}
	w.remove("lost")
}

// status is what the cluster says of a host.
func (w *world) status(h *hosts.Host) string {
	var nodes []struct{ Name, Status string }
	w.ask(w.but(h)[0], &nodes, "node", "ls")
	for _, n := range nodes {
		if n.Name == h.Name {
			return n.Status
		}
	}
	return ""
}

// judged: the rollout under load went by what the nodes' own proxies counted.
func (w *world) judged() {
	w.Helper()
	out := w.orch(w.Hosts[0], "rollout", "inspect", "front/web")
	for _, want := range []string{"requests", "error_rate 0 of", "p99"} {
		if !strings.Contains(out, want) {
			w.Errorf("orch rollout inspect doesn't tell of %q:\n%s", want, out)
		}
	}
}

// datagram asks by UDP, again and again until an answer comes, and gives its
// last line.
func (w *world) datagram(host string, port int) (tag string) {
	w.Helper()
	c, err := net.Dial("udp", net.JoinHostPort(host, fmt.Sprint(port)))
	must(w.T, err)
	defer c.Close()
	b := make([]byte, 1500)
	w.eventually("a datagram is answered", func() bool {
		if _, err := c.Write([]byte("?")); err != nil {
			return false
		}
		must(w.T, c.SetReadDeadline(time.Now().Add(time.Second)))
		n, err := c.Read(b)
		if lines := strings.Fields(string(b[:max(n, 0)])); err == nil && len(lines) > 0 {
			tag = lines[len(lines)-1]
		}
		return tag != ""
	})
	return tag
}

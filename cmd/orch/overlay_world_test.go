package main

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"

	"orch/cmd/internal/hosts"
)

// from asks the task of service "asker" on a host, by the port that it has
// there, to do something; text is what it says.
func (w *world) from(h *hosts.Host, path string, query ...string) (text string, ok bool) {
	v := url.Values{}
	for i := 0; i < len(query); i += 2 {
		v.Set(query[i], query[i+1])
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 15 * time.Second}
	a, err := client.Get(fmt.Sprintf("http://%s:9093/%s?%s", h.Addr, path, v.Encode()))
	if err != nil {
		return err.Error(), false
	}
	defer a.Body.Close()
	b, err := io.ReadAll(a.Body)
	return strings.TrimSpace(string(b)), err == nil && a.StatusCode == http.StatusOK
}

const wideText = `back = network("back")
bare = network("bare", encrypted = False)
front = network("front", internal = True)
def server(name, **more):
    return service(name, stop_grace = "1s", update = rollout(parallelism = 3, monitor = "100ms"), health = health.http("/health", port = more.pop("at", 8888), interval = "100ms"), **more)
web = server("web", image = %[1]q, replicas = 3, networks = [back], ports = [8888], env = {"TAG": "web"})
stack("wide", services = [
    web,
    server("asker", image = %[1]q, mode = "global", networks = [front, back, bare], ports = [port(8888, publish = 9093, mode = "host")]),
    server("open", image = %[1]q, replicas = 3, networks = [bare]),
    server("other", image = %[1]q, replicas = 1, networks = [front], ports = [port(8888, publish = 9094)]),
    server("native", at = 8899, runtime = "process", command = [%[2]q], replicas = 1, ports = [port(8899, publish = 9095)],
           env = {"PORT": "8899", "TAG": "native", "WEB": web.url(8888)}),
])
`

// overlay: tasks on different hosts reach each other by name on a network of
// their stack, encrypted, and nobody else does; processes and containers reach
// each other, too.
func (w *world) overlay() {
	path := filepath.Join(w.Dir, "wide.star")
	server := filepath.Join(w.Dir, "testserver")
	must(w.T, os.WriteFile(path, []byte(fmt.Sprintf(wideText, worldImage, server)), 0o644))
	w.orch(w.Hosts[0], "run", path)
	w.reachAll("at first")
	for _, h := range w.Hosts {
		if text, _ := w.from(h, "lookup", "name", "tasks.web"); len(strings.Fields(text)) != 3 {
			w.Errorf("%s: tasks.web are %q", h.Name, text)
		}
		for _, name := range []string{"web.wide", "1.web", "2.web.wide"} {
			if text, ok := w.from(h, "lookup", "name", name); !ok || len(strings.Fields(text)) != 1 {
				w.Errorf("%s: %s is %q", h.Name, name, text)
			}
		}
		for _, url := range []string{"http://native:8899/", "http://native.wide:8899/"} {
			if text, ok := w.from(h, "ask", "url", url); !ok || !strings.HasSuffix(text, "native") {
				w.Errorf("%s: %s answers %q", h.Name, url, text)
			}
		}
	}
	w.checked()
	w.secluded()
	w.native()
	w.secret()
	w.hardened()
	w.rekeyed()
	w.mended()
	w.remove("wide")
}

// checked: what doesn't get through is found, and said.
func (w *world) checked() {
	w.Helper()
	if out := w.orch(w.Hosts[1], "network", "check"); strings.Contains(out, "WRONG") || strings.Count(out, " mesh ") != 6 || strings.Count(out, " packets ") != 6 || strings.Count(out, " relay ") != 6 {
		w.Errorf("orch network check:\n%s", out)
	}
	block := func(do string) {
		must(w.T, w.Hosts[2].Command(w.Context(), "iptables", do, "INPUT", "-p", "udp", "--dport", "4749", "-j", "DROP").Run())
	}
	block("-I")
	out, err := w.command(w.Hosts[0], "network", "check", "--from", "n1").Output()
	block("-D")
	if err == nil || !strings.Contains(strings.Join(strings.Fields(string(out)), " "), "n1 n3 mesh WRONG no answer through the mesh from") || !strings.Contains(string(out), "let UDP to "+w.Hosts[2].Addr+":4749 through the firewalls between") {
		w.Errorf("with the mesh's port blocked: %v\n%s", err, out)
	}
	if out := w.orch(w.Hosts[0], "network", "inspect", "wide/back"); strings.Count(out, "ready") != 6 || strings.Count(out, "virtual") != 3 {
		w.Errorf("orch network inspect:\n%s", out)
	}
}

// reachAll waits until each host's task reaches all three of web by its name.
func (w *world) reachAll(when string) {
	w.Helper()
	for _, h := range w.Hosts {
		seen, last := map[string]bool{}, ""
		w.eventually(when+": "+h.Name+" reaches all of web", func() bool {
			text, ok := w.from(h, "ask", "url", "http://web:8888/")
			if !ok && text != last {
				last = text
				w.Logf("%s: %s: %s", when, h.Name, text)
			}
			if ok {
				seen[strings.Fields(text)[0]] = true
			}
			return len(seen) == 3
		})
	}
}

// ask has a published port's task ask for something.
func (w *world) askOf(port int, path, key, value string) (text string, ok bool) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 15 * time.Second}
	a, err := client.Get(fmt.Sprintf("http://%s:%d/%s?within=2s&%s=%s", w.Hosts[0].Addr, port, path, key, url.QueryEscape(value)))
	if err != nil {
		return err.Error(), false
	}
	defer a.Body.Close()
	b, err := io.ReadAll(a.Body)
	return strings.TrimSpace(string(b)), err == nil && a.StatusCode == http.StatusOK
}

// secluded: a task that isn't on a network neither knows its names nor reaches
// its addresses, and one on an internal network alone gets nowhere else.
func (w *world) secluded() {
	w.Helper()
	if text, ok := w.askOf(9094, "lookup", "name", "asker"); !ok {
		w.Errorf("other doesn't know asker, which is on its network: %s", text)
	}
	if text, ok := w.askOf(9094, "lookup", "name", "web"); ok {
		w.Errorf("other knows web, which is on no network of its: %s", text)
	}
	tasks, _ := w.from(w.Hosts[0], "lookup", "name", "tasks.web")
	for _, address := range strings.Fields(tasks) {
		if text, ok := w.askOf(9094, "ask", "url", "http://"+address+":8888/"); ok {
			w.Errorf("other reaches %s: %s", address, text)
		}
	}
	if text, ok := w.askOf(9094, "ask", "url", fmt.Sprintf("http://%s:9090/", w.Hosts[0].Addr)); ok {
		w.Errorf("other gets out of its internal network: %s", text)
	}
}

// native: a process is given an address by which it reaches containers, also of
// other hosts.
func (w *world) native() {
	w.Helper()
	text, ok := w.askOf(9095, "env", "name", "WEB")
	if !ok || !strings.HasPrefix(text, "http://127.0.0.1:") {
		w.Errorf("web is at %q", text)
		return
	}
	seen := map[string]bool{}
	w.eventually("the process reaches all of web", func() bool {
		answer, ok := w.askOf(9095, "ask", "url", text)
		if ok {
			seen[strings.Fields(answer)[0]] = true
		}
		return len(seen) == 3
	})
}

// secret: what tasks tell each other is not to be read between hosts, unless
// that was asked for.
func (w *world) secret() {
	w.Helper()
	if all, plain := w.overheard("tasks.web"); all < 50 || plain > 0 {
		w.Errorf("of %d frames between hosts %d were plain", all, plain)
	}
	if all, plain := w.overheard("tasks.open"); all < 50 || plain < 20 {
		w.Errorf("of %d frames between hosts only %d were plain: the capture sees nothing", all, plain)
	}
}

// overheard sends a lot, in large packets, from the first host to tasks of that
// name on all, and counts the frames that leave it, of up to 64 KiB each, and those
// that can be read.
func (w *world) overheard(name string) (all, plain int) {
	w.Helper()
	cmd := w.Hosts[0].Command(w.Context(), filepath.Join(w.Dir, "testserver"), "capture", "eth0", "plain as day")
	in, err := cmd.StdinPipe()
	must(w.T, err)
	out, err := cmd.StdoutPipe()
	must(w.T, err)
	must(w.T, cmd.Start())
	lines := bufio.NewScanner(out)
	lines.Scan() // it is ready
	tasks, _ := w.from(w.Hosts[0], "lookup", "name", name)
	for _, address := range strings.Fields(tasks) {
		if text, ok := w.from(w.Hosts[0], "ask", "url", "http://"+address+":8888/take", "send", "2000000"); !ok || !strings.HasPrefix(text, "20000") {
			w.Errorf("%s took %q of 2000000 bytes", address, text)
		}
	}
	in.Close()
	lines.Scan()
	_, err = fmt.Sscan(lines.Text(), &all, &plain)
	must(w.T, err)
	must(w.T, cmd.Wait())
	return all, plain
}

// hardened: newer Dockers (28 and on) drop what comes to a container's address by
// anything but its own bridge, before all other rules. Networks across hosts
// don't come that way.
func (w *world) hardened() {
	w.Helper()
	nft := func(h *hosts.Host, script string) string {
		w.Helper()
		cmd := h.Command(w.Context(), "nft", "-f", "-")
		cmd.Stdin = strings.NewReader(script)
		out, err := cmd.CombinedOutput()
		if err != nil {
			w.Fatalf("nft on %s: %v: %s", h.Name, err, out)
		}
		return string(out)
	}
	addresses := map[string][]string{}
	for _, h := range w.Hosts {
		ids, err := h.Command(w.Context(), "docker", "ps", "-q", "--filter", "label=orch.stack=wide").Output()
		must(w.T, err)
		format := `{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.NetworkID}}{{"\n"}}{{end}}`
		out, err := h.Command(w.Context(), "docker", append([]string{"inspect", "-f", format}, strings.Fields(string(ids))...)...).Output()
		must(w.T, err)
		rules := ""
		for line := range strings.Lines(string(out)) {
			f := strings.Fields(line)
			if len(f) != 2 {
				continue
			}
			bridge, err := h.Command(w.Context(), "docker", "network", "inspect", "-f", `{{index .Options "com.docker.network.bridge.name"}}`, f[1]).Output()
			must(w.T, err)
			rules += fmt.Sprintf("ip daddr %s iifname != %q add @dropped { ip saddr . ip daddr . ip protocol . th sport . th dport } drop\n", f[0], strings.TrimSpace(string(bridge)))
			addresses[h.Name] = append(addresses[h.Name], f[0])
		}
		nft(h, "table ip hardened {\nset dropped { type ipv4_addr . ipv4_addr . inet_proto . inet_service . inet_service; flags dynamic; size 1000; }\nchain raw { type filter hook prerouting priority raw;\n"+rules+"}\n}\n")
	}
	dropped := func(h *hosts.Host) string {
		_, elements, _ := strings.Cut(nft(h, "list set ip hardened dropped"), "elements =")
		return strings.TrimSpace(strings.Trim(strings.TrimSpace(elements), "{}\n\t "))
	}
	w.reachAll("behind the drops of newer Dockers")
	for _, h := range w.Hosts {
		if seen := dropped(h); seen != "" || len(addresses[h.Name]) == 0 {
			out, _ := h.Command(w.Context(), "docker", "ps").Output()
			w.Errorf("%s, with %v, dropped what came (from, to, protocol, ports): %s\n%s", h.Name, addresses[h.Name], seen, out)
		}
	}
	// The rules are real: what is routed to a container is dropped by them.
	one, other := w.Hosts[0], w.Hosts[1]
	to := addresses[other.Name][0]
	must(w.T, one.Command(w.Context(), "ip", "route", "add", to+"/32", "via", other.Addr).Run())
	_ = one.Command(w.Context(), "curl", "-s", "-m", "1", "http://"+to+":8888/").Run() // it must fail
	must(w.T, one.Command(w.Context(), "ip", "route", "del", to+"/32").Run())
	if seen := dropped(other); !strings.Contains(seen, one.Addr) {
		w.Errorf("what was routed to %s was not dropped, but %q", to, seen)
	}
	for _, h := range w.Hosts {
		nft(h, "delete table ip hardened")
	}
}

// rekeyed: a node's key in the mesh is replaced when it is old, and nothing that
// travels there is lost.
func (w *world) rekeyed() {
	w.Helper()
	h := w.Hosts[1]
	file := h.Path("/var/lib/orch/mesh.key")
	before, err := os.ReadFile(file)
	must(w.T, err)
	old := time.Now().AddDate(0, -2, 0)
	must(w.T, os.Chtimes(file, old, old))
	w.eventually("it has another key", func() bool {
		for _, h := range w.Hosts {
			if text, ok := w.from(h, "ask", "url", "http://web:8888/"); !ok {
				w.Errorf("while a key is replaced %s gets no answer: %s", h.Name, text)
			}
		}
		now, err := os.ReadFile(file)
		return err == nil && string(now) != string(before)
	})
	w.reachAll("after a key was replaced")
	if out := w.orch(w.Hosts[0], "network", "check"); strings.Contains(out, "WRONG") {
		w.Errorf("orch network check after a key was replaced:\n%s", out)
	}
}

// mended: what breaks a network's devices is put right.
func (w *world) mended() {
	w.Helper()
	h := w.Hosts[1]
	links := func() string {
		out, err := h.Command(w.Context(), "ip", "-br", "link").Output()
		must(w.T, err)
		return string(out)
	}
	for _, l := range strings.Fields(links()) {
		if name, _, _ := strings.Cut(l, "@"); strings.HasPrefix(name, "orv") || strings.HasPrefix(name, "orchw") {
			must(w.T, h.Command(w.Context(), "ip", "link", "del", name).Run())
		}
	}
	w.reachAll("after its devices were deleted")
	must(w.T, h.RestartDocker(w.Context()))
	w.eventually("all run again", func() bool { return w.running("wide/asker") == 3 && w.running("wide/web") == 3 })
	w.reachAll("after Docker was restarted")
	must(w.T, h.Cut())
	w.eventually("its tasks are given up", func() bool { return w.running("wide/asker") == 2 })
	must(w.T, h.Heal())
	w.eventually("they are back", func() bool { return w.running("wide/asker") == 3 && w.running("wide/web") == 3 })
	w.reachAll("after it was cut off")
}

// running counts a service's tasks that are ready.
func (w *world) running(service string) (n int) {
	var tasks []crashTask
	stack, _, _ := strings.Cut(service, "/")
	if !w.ask(w.Hosts[0], &tasks, "ps", stack) {
		return -1
	}
	for _, t := range tasks {
		if strings.HasPrefix(t.ID, service+".") && t.Status.Ready {
			n++
		}
	}
	return n
}

// networkOf is what a host's network is made of: links, addresses, routes,
// rules, and Docker's networks. Volumes are kept, as they hold what is the operator's.
func (w *world) networkOf(h *hosts.Host) string {
	w.Helper()
	var all []string
	for _, c := range [][]string{
		{"ip", "-br", "addr"}, {"ip", "route"}, {"ip", "rule"}, {"bridge", "fdb"}, {"nft", "list", "tables"}, {"iptables", "-S"}, {"iptables", "-t", "nat", "-S"},
		{"docker", "network", "ls", "--format", "{{.Name}} {{.Driver}}"},
	} {
		out, err := h.Command(w.Context(), c[0], c[1:]...).Output()
		if err != nil {
			w.Fatalf("%v on %s: %v", c, h.Name, err)
		}
		for line := range strings.Lines(string(out)) {
			// How a link is numbered, and whether one without anything on it is up, isn't ours.
			fields := strings.Fields(line)
			if c[1] == "-br" && len(fields) > 1 {
				fields[0], _, _ = strings.Cut(fields[0], "@")
				fields = slices.Delete(fields, 1, 2)
			}
			if strings.Contains(line, "33:33:") || strings.Contains(line, "01:00:5e") {
				continue // multicast, which the kernel adds by itself
			}
			fields = slices.DeleteFunc(fields, func(f string) bool { return f == "linkdown" || strings.HasPrefix(f, "fe80:") })
			all = append(all, c[0]+": "+strings.Join(fields, " "))
		}
	}
	slices.Sort(all)
	// Docker, when it is restarted, sometimes has a rule of its own twice.
	return strings.Join(slices.Compact(all), "\n")
}

// left: a host that has had tasks on networks across hosts leaves the cluster,
// and nothing of it stays.
func (w *world) left() {
	h := w.Hosts[2]
	path := filepath.Join(w.Dir, "leaving.star")
	must(w.T, os.WriteFile(path, []byte(fmt.Sprintf(`stack("leaving", services = [service("web", image = %q, mode = "global", ports = [port(8888, publish = 9090)])])
`, worldImage)), 0o644))
	w.orch(w.Hosts[0], "run", path)
	if during := w.networkOf(h); !strings.Contains(during, "orv") || !strings.Contains(during, "orchw") {
		w.Errorf("there are no networks across hosts on %s:\n%s", h.Name, during)
	}
	w.orch(h, "cluster", "leave")
	last := ""
	w.eventually("its network is as it was found", func() bool {
		now := w.networkOf(h)
		if now != last && now != w.found[h.Name] {
			last = now
			w.Log(cmp.Diff(strings.Split(w.found[h.Name], "\n"), strings.Split(now, "\n")))
		}
		return now == w.found[h.Name]
	})
	if left, err := h.Processes("orch", "orch-mesh", "orch-ingress", "orch-shim"); err != nil || len(left) > 0 {
		w.Errorf("processes %v are left, %v", left, err)
	}
}

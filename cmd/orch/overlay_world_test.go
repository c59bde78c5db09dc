package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

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

// overlay: tasks on different hosts reach each other by name on a network of
// their stack, and nobody else does.
func (w *world) overlay() {
	path := filepath.Join(w.Dir, "wide.star")
	must(w.T, os.WriteFile(path, []byte(fmt.Sprintf(`back = network("back", encrypted = param("encrypted", default = True))
front = network("front")
def server(name, **more):
    return service(name, image = %q, stop_grace = "1s", health = health.http("/health", port = 8888, interval = "100ms"), **more)
stack("wide", services = [
    server("web", replicas = 3, networks = [back], max_per_node = 1, ports = [8888], env = {"TAG": "web"}),
    server("asker", mode = "global", networks = [front, back], ports = [port(8888, publish = 9093, mode = "host")]),
    server("other", replicas = 1, networks = [front]),
])
`, worldImage)), 0o644))
	w.orch(w.Hosts[0], "run", path)
	for _, h := range w.Hosts {
		seen := map[string]bool{}
		w.eventually(h.Name+" reaches all of web", func() bool {
			text, ok := w.from(h, "ask", "url", "http://web:8888/")
			if !ok {
				w.Logf("%s: %s", h.Name, text)
				return false
			}
			seen[strings.Fields(text)[0]] = true
			return len(seen) == 3
		})
		if text, _ := w.from(h, "lookup", "name", "tasks.web"); len(strings.Fields(text)) != 3 {
			w.Errorf("tasks.web are %q", text)
		}
	}
	w.remove("wide")
}

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// tick: real InfluxDB on one host, real Telegraf on all, and what they tell
// each other crosses hosts, on each runtime.
func (w *world) tick() {
	root, err := filepath.Abs("../..")
	must(w.T, err)
	demo := filepath.Join(w.Dir, "demo")
	build := exec.CommandContext(w.Context(), "go", "build", "-o", demo, "./playbooks/demo")
	build.Dir = root
	out, err := build.CombinedOutput()
	if err != nil {
		w.Fatalf("%v\n%s", err, out)
	}
	playbook := filepath.Join(w.Dir, "tick.star") // where all hosts see it
	for _, name := range []string{"tick.star", "telegraf.conf.tmpl"} {
		content, err := os.ReadFile(filepath.Join(root, "playbooks", name))
		must(w.T, err)
		must(w.T, os.WriteFile(filepath.Join(w.Dir, name), content, 0o644))
	}
	for _, runtime := range []string{"docker", "process"} {
		var params []string
		for _, h := range w.Hosts {
			prepare := exec.CommandContext(w.Context(), demo, "-prepare", "-runtime", runtime)
			prepare.Env = append(os.Environ(), "DOCKER_HOST=unix://"+h.Docker)
			prepare.Stderr = w.Output()
			out, err := prepare.Output()
			must(w.T, err)
			params = strings.Fields(string(out))
		}
		cache, err := os.UserCacheDir()
		must(w.T, err)
		if built := filepath.Join(cache, "orch", "demo", "bin"); runtime == "process" {
			must(w.T, os.MkdirAll(w.programs(), 0o755))
			for _, name := range []string{"influxd", "telegraf", "dashboard"} {
				content, err := os.ReadFile(filepath.Join(built, name))
				must(w.T, err)
				must(w.T, os.WriteFile(filepath.Join(w.programs(), name), content, 0o755))
			}
		}
		w.orch(w.Hosts[0], append([]string{"run", playbook, "--set", "influxdb_port=9086", "--set", "dashboard_port=9088"}, params...)...)
		for _, h := range w.Hosts {
			w.eventually(runtime+": the readings of three Telegrafs, as seen on "+h.Name, func() bool { return collected(fmt.Sprintf("http://%s:9086", h.Addr)) == 3 })
			w.eventually(runtime+": the dashboard on "+h.Name, func() bool {
				a, err := impatient.Get(fmt.Sprintf("http://%s:9088/", h.Addr))
				if err != nil {
					return false
				}
				defer a.Body.Close()
				_, err = io.Copy(io.Discard, a.Body)
				return err == nil && a.StatusCode == http.StatusOK
			})
		}
		w.remove("tick")
		w.eventually("the stack is gone", func() bool { return !strings.Contains(w.orch(w.Hosts[0], "stack", "ls"), "tick") })
	}
}

// impatient asks anew where an answer doesn't come soon.
var impatient = &http.Client{Timeout: 5 * time.Second}

// collected counts the Telegrafs whose readings are in InfluxDB: the host name
// of a container, or of a process's host, says whose they are.
func collected(influx string) (n int) {
	q := url.Values{"db": {"telegraf"}, "q": {`SHOW TAG VALUES FROM "cpu" WITH KEY = "host"`}}
	a, err := impatient.Get(influx + "/query?" + q.Encode())
	if err != nil {
		return 0
	}
	defer a.Body.Close()
	var answer struct {
		Results []struct {
			Series []struct{ Values [][]string }
		}
	}
	if json.NewDecoder(a.Body).Decode(&answer) != nil {
		return 0
	}
	for _, r := range answer.Results {
		for _, s := range r.Series {
			n += len(s.Values)
		}
	}
	return n
}

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// worldRollout is what `orch rollout ls -o json` says of one.
type worldRollout struct {
	ServiceID string `json:"service_id"`
	Outcome   string
	ToVersion string `json:"to_version"`
	Journal   []struct {
		Kind   string
		Slots  []string
		Engine bool
	}
}

// rolledOver rolls a service, kills the leader in the middle of it, and looks
// whether another one goes on exactly: every slot replaced once, all through.
func (w *world) rolledOver(strategy string) {
	w.Helper()
	path := filepath.Join(w.Dir, "rolled.star")
	text := fmt.Sprintf(`load("@orch//rollout.star", "canary")
stack("rolled", services = [service("web", image = %q, replicas = 6, stop_grace = "1s", drain = "0s",
    env = {"TAG": param("tag")}, health = health.http("/health", port = 8888, interval = "200ms"), update = rollout(%s))])
`, worldImage, strategy)
	must(w.T, os.WriteFile(path, []byte(text), 0o644))
	w.orch(w.Hosts[0], "run", path, "--set", "tag=one")
	lead, rest := w.leader()
	run := w.command(rest[0], "run", path, "--set", "tag=two")
	var said bytes.Buffer
	run.Stdout, run.Stderr = &said, &said
	must(w.T, run.Start())
	under := func(h int) *worldRollout {
		var all []worldRollout
		if !w.ask(rest[h], &all, "rollout", "ls") {
			return nil
		}
		i := slices.IndexFunc(all, func(r worldRollout) bool { return r.ServiceID == "rolled/web" })
		if i < 0 {
			return nil
		}
		return &all[i]
	}
	w.eventually("the second batch is under way", func() bool {
		r := under(0)
		return r != nil && len(r.Journal) >= 5
	})
	must(w.T, lead.Signal(syscall.SIGKILL, "orch"))
	if err := run.Wait(); err != nil {
		w.Errorf("orch run, whose leader was killed: %v\n%s", err, said.String())
	}
	r := under(0)
	if r == nil || r.Outcome != "succeeded" {
		w.Fatalf("the rollout is %+v\n%s", r, said.String())
	}
	replaced := map[string]int{}
	for _, op := range r.Journal {
		for _, s := range op.Slots {
			if op.Kind == "replace" {
				if replaced[s]++; replaced[s] > 1 {
					w.Errorf("%s was replaced twice", s)
				}
			}
		}
	}
	w.start(lead)
	w.whole()
	w.eventually("six tasks of the new version, and nothing else", func() bool {
		var tasks []struct {
			Version string
			Status  struct{ Ready bool }
		}
		if !w.ask(rest[0], &tasks, "ps", "rolled") || len(tasks) != 6 || len(w.containers("rolled", w.Hosts...)) != 6 {
			return false
		}
		for _, t := range tasks {
			if t.Version != r.ToVersion || !t.Status.Ready {
				return false
			}
		}
		return true
	})
	if strings.Contains(said.String(), "rolled_back") {
		w.Errorf("it was taken back in between:\n%s", said.String())
	}
	w.remove("rolled")
}

package main

import (
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"

	"orch/cmd/internal/hosts"
)

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

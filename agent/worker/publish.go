package worker

import (
	"cmp"
	"context"
	"net"
	"slices"
	"strconv"

	"orch/engine/api"
)

func itoa[T int | uint32](n T) string { return strconv.Itoa(int(n)) }

// publish tells the publisher where published ports lead, whenever a task
// comes into rotation or leaves it.
func (w *Worker) publish(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.routes:
			if w.Publisher != nil {
				w.Publisher.Publish(w.table())
			}
		}
	}
}

// table lists the ports that tasks here publish, in order.
func (w *Worker) table() []Route {
	type key struct {
		port uint32
		ip   string
	}
	routes := map[key]*Route{}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range w.actors {
		if a.over() {
			continue
		}
		for _, p := range a.ports {
			if p.Publish == 0 || p.Mode == "host" || bindsItself(a.t.Spec, p) {
				continue
			}
			k := key{p.Publish, p.HostIp}
			r := routes[k]
			if r == nil {
				r = &Route{Port: p.Publish, HostIP: p.HostIp}
				routes[k] = r
			}
			if address, ready := a.rotation(); ready {
				r.Targets = append(r.Targets, net.JoinHostPort(address, itoa(p.Target)))
			}
		}
	}
	var all []Route
	for _, r := range routes {
		slices.Sort(r.Targets)
		all = append(all, *r)
	}
	slices.SortFunc(all, func(a, b Route) int {
		return cmp.Or(cmp.Compare(a.Port, b.Port), cmp.Compare(a.HostIP, b.HostIP))
	})
	return all
}

// bindsItself says that the task occupies the published port on its node: a
// process that listens on the very port it publishes.
func bindsItself(s *api.TaskSpec, p *api.PortSpec) bool {
	return slices.ContainsFunc(s.HostPorts, func(h *api.HostPort) bool { return h.Port == p.Publish })
}

// rotation is the task's address, and whether new connections may go there.
func (a *actor) rotation() (string, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	ready := a.status.Ready && a.status.State == api.TaskState_TASK_STATE_RUNNING && a.k.Desired != api.TaskDesired_TASK_DESIRED_STOP
	return a.status.Address, ready && a.status.Address != ""
}

package schedule

import (
	"fmt"
	"slices"
	"strings"

	"orch/engine/api"
	"orch/engine/spec"
)

// filter says why a node does not fit, or "".
type filter func(*candidate) string

// refusal texts read after a count: "2 nodes lack memory". The form is
// "singular|plural".

func explain(filters []filter, c *candidate) string {
	for _, f := range filters {
		if why := f(c); why != "" {
			return why
		}
	}
	return ""
}

func filtersFor(r Request) []filter { return append(fixedFilters(r), roomFilters(r)...) }

// fixedFilters look at nothing that placing a task changes.
func fixedFilters(r Request) []filter {
	fs := []filter{available}
	fs = append(fs, runtimeFilter(r.Spec.GetRuntime()))
	if len(r.Task.GetAddresses()) > 0 {
		fs = append(fs, planeFilter)
	}
	if p := r.Service.Spec.GetPlacement(); p != nil {
		for _, text := range p.Constraints {
			c, err := spec.ParseConstraint(text)
			fs = append(fs, func(n *candidate) string {
				if err != nil || !c.Holds(n.Node) {
					return fmt.Sprintf("fails %q|fail %q", text, text)
				}
				return ""
			})
		}
	}
	return fs
}

// roomFilters look at what is left of a node.
func roomFilters(r Request) []filter {
	var fs []filter
	if most := int(r.Service.Spec.GetPlacement().GetMaxPerNode()); most > 0 {
		fs = append(fs, func(c *candidate) string {
			if c.mine-r.insteadOn(c) >= most {
				return fmt.Sprintf("has %d of it already (max_per_node)|have %d of it already (max_per_node)", most, most)
			}
			return ""
		})
	}
	return append(fs, resourceFilter(r), portFilter(r))
}

func available(c *candidate) string {
	switch {
	case c.Status != "up":
		return "is down|are down"
	case c.Availability == "drain":
		return "is drained|are drained"
	case c.Availability == "pause":
		return "is paused|are paused"
	}
	return ""
}

func runtimeFilter(name string) filter {
	return func(c *candidate) string {
		i := slices.IndexFunc(c.Facts.GetRuntimes(), func(r *api.RuntimeFacts) bool { return r.Name == name })
		switch {
		case i < 0:
			return fmt.Sprintf("has no runtime %q|have no runtime %q", name, name)
		case c.Facts.Runtimes[i].Error != "":
			why := c.Facts.Runtimes[i].Error
			return fmt.Sprintf("can't use runtime %q (%s)|can't use runtime %q (%s)", name, why, name, why)
		}
		return ""
	}
}

// planeFilter leaves out nodes that networks don't reach, unless there is but
// one node.
func planeFilter(c *candidate) string {
	why := c.Facts.GetPlane().GetError()
	if why == "" || c.alone {
		return ""
	}
	return fmt.Sprintf("isn't reached by networks across hosts (%s)|aren't reached by networks across hosts (%s)", why, why)
}

// insteadOn is 1 on the node of the task that a request comes instead of.
func (r Request) insteadOn(c *candidate) int {
	if r.Instead != nil && r.Instead.NodeId == c.Id {
		return 1
	}
	return 0
}

func resourceFilter(request Request) filter {
	r, old := request.Spec.GetResources(), request.InsteadSpec.GetResources()
	return func(c *candidate) string {
		if r == nil {
			return ""
		}
		n := int64(request.insteadOn(c))
		if r.CpusMilli > 0 && c.cpus-n*old.GetCpusMilli()+r.CpusMilli > c.Facts.GetCpusMilli() {
			need := fmt.Sprintf(" cpus (need %g)", float64(r.CpusMilli)/1000)
			return "lacks" + need + "|lack" + need
		}
		if r.Memory > 0 && c.memory-n*old.GetMemory()+r.Memory > c.Facts.GetMemory() {
			need := fmt.Sprintf(" memory (need %s)", size(r.Memory))
			return "lacks" + need + "|lack" + need
		}
		return ""
	}
}

func portFilter(r Request) filter {
	return func(c *candidate) string {
		for _, p := range r.Spec.GetHostPorts() {
			for _, o := range c.ports[portKey(p)] {
				if o.task == r.Instead.GetId() && r.Instead != nil {
					continue
				}
				if p.HostIp == "" || o.ip == "" || p.HostIp == o.ip {
					text := fmt.Sprintf(" port %s taken by %s", portKey(p), o.task)
					return "has" + text + "|have" + text
				}
			}
		}
		return ""
	}
}

func portKey(p *api.HostPort) string {
	if p.Protocol == "udp" {
		return fmt.Sprintf("%d/udp", p.Port)
	}
	return fmt.Sprintf("%d/tcp", p.Port)
}

func size(bytes int64) string {
	for _, u := range []struct {
		name string
		n    int64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if bytes >= u.n {
			return fmt.Sprintf("%.4g %s", float64(bytes)/float64(u.n), u.name)
		}
	}
	return fmt.Sprintf("%d B", bytes)
}

// pinned is the text of a refusal by the only node that is allowed.
func pinned(r Request, n *candidate, why string) string {
	one, _, _ := strings.Cut(why, "|")
	where := ""
	if r.PinWhy != "" {
		where = ", where " + r.PinWhy + " is,"
	}
	return fmt.Sprintf("node %q%s %s", n.Name, where, one)
}

// refusals counts nodes by why they don't fit.
type refusals map[string]int

func (r refusals) add(why string) { r[why]++ }

func (r refusals) text(nodes int) string {
	if nodes == 0 {
		return "the cluster has no nodes yet"
	}
	whys := make([]string, 0, len(r))
	for why := range r {
		whys = append(whys, why)
	}
	slices.SortFunc(whys, func(a, b string) int {
		if r[a] != r[b] {
			return r[b] - r[a]
		}
		return strings.Compare(a, b)
	})
	for i, why := range whys {
		one, many, _ := strings.Cut(why, "|")
		if r[why] == 1 {
			whys[i] = "1 node " + one
		} else {
			whys[i] = fmt.Sprintf("%d nodes %s", r[why], many)
		}
	}
	return "no node fits: " + strings.Join(whys, ", ")
}

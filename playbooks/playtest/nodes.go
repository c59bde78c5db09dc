package playtest

import (
	"fmt"

	"go.starlark.net/starlark"

	"orch/engine/api"
)

// mostNodes is how many nodes a simulation may have.
const mostNodes = 1000

const wantNodes = `must be a number of nodes from 1 to 1000, a list of dicts of labels, or a dict of them by name, not %s`

// nodes reads what nodes there are. They are large: a test is about rollouts,
// not about what fits where.
func (c *call) nodes() ([]*api.Node, error) {
	var all []*api.Node
	add := func(name string, labels map[string]string) {
		all = append(all, &api.Node{Id: name, Name: name, Labels: labels,
			Facts: &api.NodeFacts{Hostname: name, Os: "linux", Arch: "amd64", CpusMilli: 256_000, Memory: 1 << 40}})
	}
	number := func() string { return fmt.Sprintf("n%d", len(all)+1) }
	v, given := c.args["nodes"]
	if !given {
		v = starlark.MakeInt(3)
	}
	switch v := v.(type) {
	case starlark.Int:
		if n, ok := v.Int64(); ok && n <= mostNodes {
			for range n {
				add(number(), nil)
			}
		}
	case *starlark.List:
		for x := range starlark.Elements(v) {
			labels, err := c.labels(number(), x)
			if err != nil {
				return nil, err
			}
			add(number(), labels)
		}
	case *starlark.Dict:
		for k, x := range v.Entries() {
			name, ok := starlark.AsString(k)
			if !ok {
				return nil, c.errorf("nodes", "must have names as keys, not %s", show(k))
			}
			labels, err := c.labels(name, x)
			if err != nil {
				return nil, err
			}
			add(name, labels)
		}
	}
	if len(all) == 0 || len(all) > mostNodes {
		return nil, c.errorf("nodes", wantNodes, show(v))
	}
	return all, nil
}

func (c *call) labels(node string, v starlark.Value) (map[string]string, error) {
	d, ok := v.(*starlark.Dict)
	if !ok {
		return nil, c.errorf("nodes", "must have a dict of labels for %s, not %s", node, show(v))
	}
	all := map[string]string{}
	for k, x := range d.Entries() {
		key, ok1 := starlark.AsString(k)
		value, ok2 := starlark.AsString(x)
		if !ok1 || !ok2 {
			return nil, c.errorf("nodes", "must have strings as labels of %s, not %s", node, show(v))
		}
		all[key] = value
	}
	return all, nil
}

package builtins

import (
	"fmt"
	"slices"
	"strings"

	"go.starlark.net/starlark"

	"orch/engine/api"
	"orch/engine/spec"
)

// nodeKeyKind reads what batches and orders go by.
var nodeKeyKind = Kind{Name: "node key", Stub: "str", read: func(v starlark.Value) (any, error) {
	s, ok := v.(starlark.String)
	if ok {
		_, err := spec.ParseConstraint(string(s) + " == x")
		ok = err == nil && !strings.ContainsAny(string(s), "=! ")
	}
	if !ok {
		return nil, wrong("a node key such as node.labels.zone", v)
	}
	return string(s), nil
}}

// sizesKind reads one size of batches or a list of them, as []string.
var sizesKind = Kind{Name: "int, percentage, or list of them", Stub: "int | str | list[int | str]", read: func(v starlark.Value) (any, error) {
	if _, ok := v.(starlark.Indexable); !ok || v.Type() == "string" {
		size, err := parallelismKind.read(v)
		if err != nil {
			return nil, err
		}
		return []any{size}, nil
	}
	all, err := list(parallelismKind).read(v)
	if err == nil && all == nil {
		return nil, hinted{" is an empty list: it must have a size at least", ""}
	}
	return all, err
}}

var slotsFunc = &Func{Name: "r.slots", Doc: `The service's slots, as strings such as "web.1": those that the rollout began with, less those whose place r.adopt() gave away, and the adopted ones.`, Returns: "list of str",
	Params:  []Param{{Name: "order", Kind: nodeKeyKind, Default: "None", Position: true, Doc: `Sort them by what their nodes have there: "node.labels.zone".`}},
	Example: `for slot in r.slots(): r.replace([slot])`}

var batchesFunc = &Func{Name: "r.batches", Doc: "The service's slots in groups, each a list.", Returns: "list of lists",
	Params: []Param{
		{Name: "size", Kind: sizesKind, Default: "None", Position: true, Doc: `Slots in a batch: a number, a part of the replicas such as "25%" (rounded up), or a list of those, whose last goes for all that follow. None means 1, and with by all that are alike.`},
		{Name: "slots", Kind: slotsKind, Default: "None", Doc: "Which; None means r.slots()."},
		{Name: "by", Kind: nodeKeyKind, Default: "None", Doc: `Never put slots together whose nodes differ there: "node.labels.zone".`},
	},
	Example: `for batch in r.batches([1, "25%"]): r.replace(batch)`}

func stringList(all []string) *starlark.List {
	l := make([]starlark.Value, len(all))
	for i, s := range all {
		l[i] = starlark.String(s)
	}
	return starlark.NewList(l)
}

func (p *Replay) listSlots(c *call) (starlark.Value, error) {
	slots := slices.Clone(p.slots)
	if key := c.str("order"); key != "" {
		p.sortBy(slots, key)
	}
	return stringList(slots), nil
}

// sortBy sorts slots by a value of their nodes; equal ones stay as they are.
func (p *Replay) sortBy(slots []string, key string) {
	value := p.valueOf(key)
	slices.SortStableFunc(slots, func(a, b string) int { return strings.Compare(value(a), value(b)) })
}

// valueOf is what the node of a slot has under a key; "" where it has no
// node. A slot that was adopted has none here: the journal begins without it.
func (p *Replay) valueOf(key string) func(slot string) string {
	nodes := map[string]*api.Node{}
	for _, n := range p.journal[0].Nodes {
		nodes[n.Id] = n
	}
	return func(slot string) string {
		n := nodes[p.journal[0].Places[p.id(slot)]]
		if n == nil {
			return ""
		}
		return spec.NodeValue(n, key)
	}
}

func (p *Replay) batches(c *call) (starlark.Value, error) {
	slots := slices.Clone(p.slots)
	if c.has("slots") {
		slots = slots[:0]
		for _, id := range p.slotsOf(c, "slots", false) {
			slots = append(slots, short(id))
		}
	}
	if c.bad {
		return nil, ErrReported
	}
	key := c.str("by")
	same := func(string, string) bool { return true }
	if key != "" {
		p.sortBy(slots, key)
		value := p.valueOf(key)
		same = func(a, b string) bool { return value(a) == value(b) }
	}
	sizes := c.strings("size")
	all := starlark.NewList(nil)
	for n := 0; len(slots) > 0; n++ {
		size := 1
		switch {
		case len(sizes) > 0:
			var err error
			if size, err = spec.BatchSize(sizes[min(n, len(sizes)-1)], p.replicas()); err != nil {
				return nil, err
			}
		case key != "":
			size = len(slots)
		}
		end := 1
		for end < len(slots) && end < size && same(slots[0], slots[end]) {
			end++
		}
		all.Append(stringList(slots[:end]))
		slots = slots[end:]
	}
	return all, nil
}

// slotsOf reads a list of slots as ids; of surges, too, if that is said.
func (p *Replay) slotsOf(c *call, param string, surges bool) []string {
	given := c.strings(param)
	if p.known == nil {
		p.known = make(map[string]bool, len(p.slots))
		for _, s := range p.slots {
			p.known[s] = true
		}
	}
	ids := make([]string, len(given))
	var seen map[string]bool
	if len(given) > 1 {
		seen = make(map[string]bool, len(given))
	}
	for i, s := range given {
		switch {
		case seen[s]:
			c.errorf(param, "%q is listed twice", s)
		case !p.known[s] && !(surges && p.surged[s]):
			known := p.slots
			if surges {
				known = append(slices.Clip(known), sortedKeys(p.surged)...)
			}
			c.problem(Problem{Arg: param, Index: p.index(c, param), Message: fmt.Sprintf("%s: there is no slot %q", c.fn.Name, s), Hint: slotHint(s, known)})
		}
		if seen != nil {
			seen[s] = true
		}
		ids[i] = p.id(s)
	}
	return ids
}

func (p *Replay) index(c *call, param string) int {
	if i := c.at_(param); c.fn.Params[i].Position {
		return i + 1
	}
	return 0
}

func slotHint(slot string, known []string) string {
	if h := Suggest(slot, known); h != "" || len(known) == 0 {
		return h
	}
	if len(known) > 8 {
		return fmt.Sprintf("r.slots() are %s, ... %s", strings.Join(known[:3], ", "), known[len(known)-1])
	}
	return "r.slots() are " + strings.Join(known, ", ")
}

package schedule

import (
	"cmp"
	"fmt"
	"strings"
)

// leave decides about tasks that may move from a node to a better one: the
// best that fits, where the node that the task leaves stays busier than that
// by at least this task. So no move makes another one in the other direction.
func (p *placer) leave(requests []Request, out []Decision) {
	first := requests[0]
	from := p.byID[first.Leave]
	fit := p.fitting(first, from)
	room := roomFilters(first)
	for i, r := range requests {
		to := (*candidate)(nil)
		if from != nil && r.Pin == "" {
			to = better(from, fit, room)
		}
		if to == nil {
			out[i].Reason = "no node is better"
			continue
		}
		out[i].Node = to.Id
		p.take(to, r.Service.Id, r.Task.Id, r.Spec)
		p.counted(to, 1)
	}
}

// fitting lists the nodes that would do for a request if they had room, ready
// to be compared with one another and with also.
func (p *placer) fitting(r Request, also *candidate) []*candidate {
	filters := fixedFilters(r)
	var fit []*candidate
	for _, c := range p.nodes {
		c.mine = p.perService[r.Service.Id][c.Id]
		c.slots = p.perSlot[r.Service.Id][c.Id]
		c.around = nil
		if c == also || explain(filters, c) == "" {
			c.failing = c.Id == r.Avoid || p.fails(r, c)
			fit = append(fit, c)
		}
	}
	if spread := r.Service.Spec.GetPlacement().GetSpread(); len(spread) > 0 {
		p.neighbourhoods(fit, r.Service.Id, spread)
	}
	return fit
}

// counted says that n tasks of the service at hand came to c.
func (p *placer) counted(c *candidate, n int) {
	c.mine += n
	c.slots += n
	for _, around := range c.around {
		*around += n
	}
}

// better is the node of fit that a task on from would be better on; nil: none.
func better(from *candidate, fit []*candidate, room []filter) *candidate {
	best := from
	for _, c := range fit {
		if c == from || c.failing {
			continue
		}
		order := without(from, c, best)
		if order == 0 && best != from {
			order = strings.Compare(c.Id, best.Id)
		}
		if order < 0 && explain(room, c) == "" {
			best = c
		}
	}
	if best == from {
		return nil
	}
	return best
}

// without compares what a and b have, a task of from's (nil: of none) not
// counted: as Place does, but for failures and ids.
func without(from, a, b *candidate) int {
	for i := range a.around {
		x, y := *a.around[i], *b.around[i]
		if from != nil && a.around[i] == from.around[i] {
			x--
		}
		if from != nil && b.around[i] == from.around[i] {
			y--
		}
		if x != y {
			return cmp.Compare(x, y)
		}
	}
	mine, total := func(c *candidate) int { return c.mine }, func(c *candidate) int { return c.total }
	for _, count := range []func(*candidate) int{mine, total} {
		x, y := count(a), count(b)
		if a == from {
			x--
		}
		if b == from {
			y--
		}
		if x != y {
			return cmp.Compare(x, y)
		}
	}
	return 0
}

// gain says by what a task is better on to than on from.
func gain(service string, spread []string, from, to *candidate) string {
	for i := range from.around {
		if from.around[i] != to.around[i] && *from.around[i]-1 > *to.around[i] {
			return fmt.Sprintf("%s of node %q has %d of %q, its own %d", spread[i], to.Name, *to.around[i], service, *from.around[i])
		}
	}
	if from.mine-1 > to.mine {
		return fmt.Sprintf("node %q has %d of %q, its own %d", to.Name, to.mine, service, from.mine)
	}
	return fmt.Sprintf("node %q has %d tasks in all, its own %d", to.Name, to.total, from.total)
}

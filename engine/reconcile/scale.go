package reconcile

import (
	"cmp"
	"slices"
	"strconv"

	"orch/engine/api"
	"orch/engine/spec"
	"orch/engine/state"
)

// numbers are the slots that a replicated service is to have, in order. New
// ones get the lowest numbers that are free. When there are too many, those
// without a serving task go first, then those on the nodes (and before that,
// under the spread values) that have most of the service, then the highest
// numbers; a service with local volumes keeps its lowest numbers in any case,
// since that is where its data is.
func (s *service) numbers() []int {
	var have []int
	top := 0
	taken := map[int]bool{}
	for _, slot := range s.slot {
		if n, err := strconv.Atoi(slot.Key); err == nil && slot.Group != "" && !slot.Removed {
			taken[n] = true // by a surge
		}
		if n, err := strconv.Atoi(slot.Key); err == nil && n >= 1 && strconv.Itoa(n) == slot.Key && !slot.Removed && slot.Group == "" {
			have = append(have, n)
			top = max(top, n)
		}
	}
	want := int(s.svc.Spec.Replicas)
	switch {
	case top == len(have) && len(have) <= want && len(taken) == 0: // 1 to top
		have = have[:0]
		for i := range want {
			have = append(have, i+1)
		}
		return have
	case len(have) > want:
		slices.Sort(have)
		return s.fewer(have, want)
	}
	for _, n := range have {
		taken[n] = true
	}
	for n := 1; len(have) < want; n++ {
		if !taken[n] {
			have = append(have, n)
		}
	}
	slices.Sort(have)
	return have
}

// place is a node with the numbers of the service's slots there.
type place struct {
	slots  []int
	around []*int // tasks of the service under each of its spread values, then here
}

// fewer leaves want of the numbers.
func (s *service) fewer(have []int, want int) []int {
	if want == 0 || s.hasVolume() {
		return have[:want]
	}
	gone := map[int]bool{}
	places, idle := s.places(have)
	for len(have)-len(gone) > want && len(idle) > 0 {
		gone[idle[len(idle)-1]] = true
		idle = idle[:len(idle)-1]
	}
	for len(have)-len(gone) > want {
		p := slices.MaxFunc(places, func(a, b *place) int {
			for i := range a.around {
				if *a.around[i] != *b.around[i] {
					return cmp.Compare(*a.around[i], *b.around[i])
				}
			}
			return cmp.Compare(a.slots[len(a.slots)-1], b.slots[len(b.slots)-1])
		})
		gone[p.slots[len(p.slots)-1]] = true
		p.slots = p.slots[:len(p.slots)-1]
		for _, n := range p.around {
			*n--
		}
		if len(p.slots) == 0 {
			places = slices.DeleteFunc(places, func(q *place) bool { return q == p })
		}
	}
	return slices.DeleteFunc(have, func(n int) bool { return gone[n] })
}

// places sorts slots by where they serve; idle ones don't, or not for long.
func (s *service) places(have []int) (places []*place, idle []int) {
	at := map[string]*place{}
	counts := map[string]*int{}
	for _, number := range have {
		var node *api.Node
		for _, t := range s.tasks[state.SlotID(s.svc.Id, strconv.Itoa(number))] {
			if usable(t) && s.serving(t) && s.misplaced(t) == "" {
				node = s.nodes[t.NodeId]
			}
		}
		if node == nil {
			idle = append(idle, number)
			continue
		}
		p := at[node.Id]
		if p == nil {
			p = &place{}
			path := ""
			for _, key := range append(slices.Clone(s.svc.Spec.GetPlacement().GetSpread()), "node.id") {
				path += "/" + spec.NodeValue(node, key)
				if counts[path] == nil {
					counts[path] = new(int)
				}
				p.around = append(p.around, counts[path])
			}
			at[node.Id] = p
			places = append(places, p)
		}
		p.slots = append(p.slots, number)
		for _, n := range p.around {
			*n++
		}
	}
	return places, idle
}

func (s *service) hasVolume() bool {
	return slices.ContainsFunc(s.svc.Spec.GetTask().GetMounts(), func(m *api.Mount) bool { return m.Type == "volume" })
}

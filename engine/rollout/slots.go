package rollout

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	"orch/engine/api"
	"orch/engine/spec"
	"orch/engine/state"
)

// replace lets slots run the target; how many of them at once, and which of
// their tasks stop when, is reconcile's to decide.
func (s *step) replace(op *api.Op) {
	chosen := map[string]bool{}
	for _, id := range op.Slots {
		chosen[id] = true
	}
	for _, slot := range s.slots {
		if chosen[slot.Id] {
			slot = proto.CloneOf(slot)
			slot.Version, slot.Order, slot.RolloutId = s.target(), op.Order, s.mark()
			s.out.Slots = append(s.out.Slots, slot)
		}
	}
	s.end(op, true)
}

// groupOf lists the slots of a surge.
func (s *step) groupOf(name string) []*api.Slot {
	var all []*api.Slot
	for _, slot := range s.surge {
		if slot.Group == name {
			all = append(all, slot)
		}
	}
	return all
}

// grow brings a surge to its count: tasks of the new version beside the
// slots, which no other task has to stop for. Those that are there stay. The
// op stays open while places for it come free.
func (s *step) grow(op *api.Op) {
	have := s.groupOf(op.Group)
	want := int(op.Count)
	most, err := spec.Amount(s.svc.Spec.GetUpdate().GetMaxSurge(), len(s.slots))
	if s.svc.Spec.GetUpdate().GetMaxSurge() == "" {
		most, err = len(s.slots), nil
	}
	switch {
	case err != nil:
		s.refuse(op, "max_surge "+err.Error())
	case len(s.surge)-len(have)+want > most:
		s.refuse(op, fmt.Sprintf("max_surge allows %s beside the slots, not %d", tasks(most), len(s.surge)-len(have)+want))
	case spec.LocalVolume(s.svc.Spec.Task) != nil:
		s.refuse(op, fmt.Sprintf("the data in volume %q stays with its slot: use r.replace", spec.LocalVolume(s.svc.Spec.Task).Source))
	}
	if op.EndedAt != nil {
		return
	}
	for _, slot := range have[min(want, len(have)):] {
		s.out.Slots = append(s.out.Slots, gone(slot))
	}
	have = have[:min(want, len(have))]
	keys := s.freeKeys(want - len(have))
	if len(keys) < want-len(have) {
		s.out.Slots = nil
		if s.svc.Spec.Mode == "global" && want <= len(s.slots) {
			return // tasks that go are still in their places: it is tried again
		}
		s.refuse(op, fmt.Sprintf("there are only %d nodes for it, not %d", len(keys)+len(have), want))
		return
	}
	for _, slot := range have {
		op.Slots = append(op.Slots, slot.Id)
	}
	for _, key := range keys {
		slot := &api.Slot{Id: state.SlotID(s.svc.Id, key), ServiceId: s.svc.Id, Key: key, Version: s.target(), Group: op.Group, RolloutId: s.mark()}
		op.Slots = append(op.Slots, slot.Id)
		s.out.Slots = append(s.out.Slots, slot)
	}
	s.end(op, true)
}

func tasks(n int) string {
	if n == 1 {
		return "1 task"
	}
	return fmt.Sprintf("%d tasks", n)
}

func gone(slot *api.Slot) *api.Slot {
	slot = proto.CloneOf(slot)
	slot.Removed, slot.Group = true, ""
	return slot
}

// freeKeys names n slots that nothing is in: the lowest free numbers, or, for
// a global service, the other place on a node.
func (s *step) freeKeys(n int) []string {
	taken := map[string]bool{}
	for _, slot := range s.view.SlotsOf(s.svc.Id) {
		taken[slot.Key] = !slot.Removed || slices.ContainsFunc(s.tasks[slot.Id], func(t *api.Task) bool { return !state.Ended(t.Status.GetState()) })
	}
	var keys []string
	if s.svc.Spec.Mode == "global" {
		beside := map[string]bool{}
		for _, slot := range s.surge {
			beside[state.SlotNode(slot)] = true
		}
		for _, slot := range s.slots {
			other := state.OtherKey(slot.Key)
			if !beside[state.SlotNode(slot)] && !taken[other] && len(keys) < n {
				keys = append(keys, other)
			}
		}
		return keys
	}
	for i := 1; len(keys) < n; i++ {
		if key := strconv.Itoa(i); !taken[key] {
			keys = append(keys, key)
		}
	}
	return keys
}

// adopt makes the tasks of a surge, which must be ready, the service's own.
// They run on as they are; slots of the old version go in their stead.
func (s *step) adopt(op *api.Op) {
	group := s.groupOf(op.Group)
	if len(group) == 0 {
		s.refuse(op, fmt.Sprintf("there is no surge %q", op.Group))
		return
	}
	for _, slot := range group {
		if t := s.task(slot.Id, s.target()); !ready(t) {
			s.refuse(op, fmt.Sprintf("%s isn't ready%s", Short(slot.Id), because(t)))
			return
		}
	}
	nodes := map[string]bool{}
	for _, slot := range group {
		nodes[state.SlotNode(slot)] = true
		slot = proto.CloneOf(slot)
		slot.Group = ""
		op.Slots = append(op.Slots, slot.Id)
		s.out.Slots = append(s.out.Slots, slot)
	}
	old := s.remaining()
	if s.svc.Spec.Mode == "global" {
		old = slices.DeleteFunc(slices.Clone(s.slots), func(slot *api.Slot) bool { return !nodes[state.SlotNode(slot)] })
	} else {
		slices.SortStableFunc(old, func(a, b *api.Slot) int { // those that don't serve first, then from the end
			if x, y := s.serves(a, a.Version), s.serves(b, b.Version); x != y {
				if x {
					return 1
				}
				return -1
			}
			return slices.Index(s.slots, b) - slices.Index(s.slots, a)
		})
		surplus := len(s.slots) + len(group) - int(s.svc.Spec.Replicas)
		old = old[:max(min(surplus, len(old)), 0)]
	}
	for _, slot := range old {
		op.Removed = append(op.Removed, slot.Id)
		s.out.Slots = append(s.out.Slots, gone(slot))
	}
	s.end(op, true)
}

// drop ends a surge.
func (s *step) drop(op *api.Op) {
	for _, slot := range s.groupOf(op.Group) {
		op.Slots = append(op.Slots, slot.Id)
		s.out.Slots = append(s.out.Slots, gone(slot))
	}
	s.end(op, true)
}

// pin writes down what a strategy knows of the slots for as long as it runs.
func (s *step) pin(op *api.Op) {
	op.Replicas = int32(len(s.slots))
	op.Places = map[string]string{}
	seen := map[string]bool{}
	for _, slot := range s.slots {
		op.Slots = append(op.Slots, slot.Id)
		node := ""
		for _, t := range s.tasks[slot.Id] {
			if !state.Ended(t.Status.GetState()) && t.NodeId != "" {
				node = t.NodeId
			}
		}
		n := s.view.Node(node)
		if n == nil {
			continue
		}
		op.Places[slot.Id] = node
		if !seen[node] {
			seen[node] = true
			op.Nodes = append(op.Nodes, &api.Node{Id: n.Id, Name: n.Name, Role: n.Role, Labels: n.Labels,
				Facts: &api.NodeFacts{Hostname: n.Facts.GetHostname(), Os: n.Facts.GetOs(), Arch: n.Facts.GetArch()}})
		}
	}
	slices.SortFunc(op.Nodes, func(a, b *api.Node) int { return strings.Compare(a.Id, b.Id) })
}

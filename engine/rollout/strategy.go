package rollout

import (
	"cmp"
	"slices"
	"strings"

	"orch/engine/api"
	"orch/engine/spec"
)

// Context is what a strategy may base its decisions on, beside the journal.
type Context struct {
	Policy *api.RolloutPolicy
	// Remaining slots still run another version, in the order of their keys.
	Remaining []*api.Slot
	// Slots is the number of all of them, and All are their ids.
	Slots int
	All   []string
	// Unproven slots have the new version, from before this run of the
	// rollout; it isn't one that is known to work.
	Unproven []string
	// Failed slots so far, over the whole rollout.
	Failed int
}

// Strategy says which op comes after the ones in the journal. The same
// context and journal give the same op.
type Strategy interface {
	Next(c Context, journal []*api.Op) (*api.Op, error)
}

// Rolling replaces batches of `parallelism` slots: each must be healthy for
// `monitor` before, after `delay`, the next begins. More failed slots than
// max_failure_ratio allows end it by on_failure.
type Rolling struct{}

func (Rolling) Next(c Context, journal []*api.Op) (*api.Op, error) {
	size, err := spec.BatchSize(c.Policy.GetParallelism(), c.Slots)
	if err != nil {
		return nil, err
	}
	last := &api.Op{}
	if len(journal) > 0 {
		last = journal[len(journal)-1]
	}
	switch last.Kind {
	case "replace":
		return &api.Op{Kind: "wait_healthy", Slots: last.Slots, Duration: c.Policy.GetMonitor()}, nil
	case "wait_healthy":
		if !last.Ok {
			allowed := c.Policy.GetMaxFailureRatio() * float64(c.Slots)
			if policy := cmp.Or(c.Policy.GetOnFailure(), "rollback"); float64(c.Failed) > allowed && policy != "continue" {
				return &api.Op{Kind: "fail", Policy: policy, Reason: last.Reason}, nil
			}
		}
		if len(c.Remaining) > 0 && c.Policy.GetDelay().AsDuration() > 0 {
			return &api.Op{Kind: "pause", Duration: c.Policy.Delay}, nil
		}
	}
	if unseen := unwaited(c.Unproven, journal); len(unseen) > 0 {
		return &api.Op{Kind: "wait_healthy", Slots: unseen, Duration: c.Policy.GetMonitor()}, nil
	}
	if len(c.Remaining) == 0 {
		// Nothing counts as done that wasn't seen healthy.
		if unseen := unwaited(c.All, journal); len(unseen) > 0 {
			return &api.Op{Kind: "wait_healthy", Slots: unseen, Duration: c.Policy.GetMonitor()}, nil
		}
		return &api.Op{Kind: "succeed"}, nil
	}
	op := &api.Op{Kind: "replace", Order: cmp.Or(c.Policy.GetOrder(), "start-first")}
	for _, s := range c.Remaining[:min(size, len(c.Remaining))] {
		op.Slots = append(op.Slots, s.Id)
	}
	return op, nil
}

// unwaited are the slots that no wait of the journal was for.
func unwaited(slots []string, journal []*api.Op) []string {
	waited := map[string]bool{}
	for _, op := range journal {
		if op.Kind == "wait_healthy" {
			for _, s := range op.Slots {
				waited[s] = true
			}
		}
	}
	return slices.DeleteFunc(slices.Clone(slots), func(s string) bool { return waited[s] })
}

// sortSlots orders by number, or by node id for a global service.
func sortSlots(slots []*api.Slot) {
	slices.SortFunc(slots, func(a, b *api.Slot) int {
		return cmp.Or(cmp.Compare(len(a.Key), len(b.Key)), strings.Compare(a.Key, b.Key))
	})
}

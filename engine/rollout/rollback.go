package rollout

import (
	"cmp"

	"orch/engine/api"
	"orch/engine/spec"
)

// rollback takes slots back to the old version: first, all at once, those
// where the new one doesn't serve; then the rest in the policy's batches.
// Tasks of the old version that still run take their slots over again.
func (s *step) rollback(journal []*api.Op) *api.Op {
	policy := s.r.From.GetRollback()
	if policy == nil {
		policy = &api.RolloutPolicy{Parallelism: s.r.From.GetUpdate().GetParallelism(), Order: s.r.From.GetUpdate().GetOrder()}
	}
	done := journal[rollbackStart(journal):]
	if len(done) == 0 {
		return &api.Op{Kind: "begin", Text: "rollback", Reason: s.r.Reason, Engine: true}
	}
	remaining := s.remaining()
	switch last := done[len(done)-1]; {
	case last.Kind == "replace":
		return &api.Op{Kind: "wait_healthy", Slots: last.Slots, Duration: policy.GetMonitor(), Engine: true}
	case last.Kind == "wait_healthy" && !last.Ok && policy.OnFailure != "continue":
		return &api.Op{Kind: "fail", Policy: cmp.Or(policy.OnFailure, "pause"), Reason: last.Reason, Engine: true}
	case last.Kind == "wait_healthy" && len(remaining) > 0 && policy.Delay.AsDuration() > 0:
		return &api.Op{Kind: "pause", Duration: policy.Delay, Engine: true}
	}
	if len(remaining) == 0 {
		if len(s.surge) > 0 {
			return &api.Op{Kind: "drop", Group: s.surge[0].Group, Engine: true}
		}
		var touched []string
		for _, slot := range s.slots {
			if s.mine(slot) {
				touched = append(touched, slot.Id)
			}
		}
		if unseen := unwaited(touched, done); len(unseen) > 0 {
			return &api.Op{Kind: "wait_healthy", Slots: unseen, Duration: policy.GetMonitor(), Engine: true}
		}
		return &api.Op{Kind: "succeed", Reason: s.r.Reason, Engine: true}
	}
	op := &api.Op{Kind: "replace", Order: cmp.Or(policy.Order, "start-first"), Engine: true}
	for _, slot := range remaining {
		if !s.serves(slot, s.r.ToVersion) {
			op.Slots = append(op.Slots, slot.Id)
		}
	}
	if len(op.Slots) > 0 {
		return op
	}
	size, err := spec.BatchSize(policy.GetParallelism(), len(s.slots))
	if err != nil {
		size = 1
	}
	for _, slot := range remaining[:min(size, len(remaining))] {
		op.Slots = append(op.Slots, slot.Id)
	}
	return op
}

// rollbackStart is where in the journal the rollback's ops begin.
func rollbackStart(journal []*api.Op) int {
	for i := len(journal) - 1; i >= 0; i-- {
		if journal[i].Kind == "begin" && journal[i].Text == "rollback" {
			return i
		}
	}
	return len(journal)
}

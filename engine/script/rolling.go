package script

import (
	"orch/engine/api"
	"orch/engine/rollout"
	"orch/engine/simulate"
	"orch/engine/spec"
)

// New makes a world whose rollouts are Rolling.
func New() *simulate.World {
	w := simulate.New()
	w.Strategy = Rolling{}
	return w
}

// Rolling is the library's strategy of that name once more, in Go: tests of
// the engine need no Starlark then, and transcripts must come to the same
// with either.
type Rolling struct{}

// Next implements rollout.Strategy.
func (Rolling) Next(q rollout.Question) (*api.Op, error) {
	begin, p := q.Journal[0], q.Rollout.Policy
	size, err := spec.BatchSize(p.GetParallelism(), len(begin.Slots))
	if err != nil {
		return nil, err
	}
	order := p.GetOrder()
	if order == "" {
		order = "start-first"
	}
	at, failed, why := 1, 0, ""
	onFailure := p.GetOnFailure()
	if onFailure == "" {
		onFailure = "rollback"
	}
	allowed := p.GetMaxFailureRatio() * float64(len(begin.Slots))
	for i := 0; i < len(begin.Slots); i += size {
		batch := begin.Slots[i:min(i+size, len(begin.Slots))]
		if i > 0 && p.GetDelay().AsDuration() > 0 {
			if at == len(q.Journal) {
				return &api.Op{Kind: "pause", Duration: p.GetDelay()}, nil
			}
			at++
		}
		if at == len(q.Journal) {
			return &api.Op{Kind: "replace", Slots: batch, Order: order}, nil
		}
		at++
		if at == len(q.Journal) {
			return &api.Op{Kind: "wait_healthy", Slots: batch, Duration: p.GetMonitor(), MaxFailed: int32(max(int(allowed)-failed, 0))}, nil
		}
		failed += len(q.Journal[at].Failed)
		if !q.Journal[at].Ok && onFailure != "continue" {
			return &api.Op{Kind: "fail", Policy: onFailure, Reason: q.Journal[at].Reason}, nil
		}
		if !q.Journal[at].Ok {
			why = q.Journal[at].Reason
		}
		at++
	}
	if why != "" {
		return &api.Op{Kind: "fail", Policy: "continue", Reason: why}, nil
	}
	return &api.Op{Kind: "succeed"}, nil
}

package agent

import (
	"context"

	"orch/engine/api"
)

// answer says what the engine asks about the data plane.
func (a *Agent) answer(ctx context.Context, ask *api.Ask) *api.Answer {
	switch k := ask.What.(type) {
	case *api.Ask_Traffic:
		sum, err := a.carrier.Traffic(ctx, k.Traffic)
		if err != nil {
			return &api.Answer{Error: err.Error()}
		}
		return &api.Answer{Traffic: sum}
	case *api.Ask_Check:
		return &api.Answer{Findings: a.check(ctx, k.Check)}
	}
	return &api.Answer{Error: "its agent is too old to answer this"}
}

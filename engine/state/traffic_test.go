package state_test

import (
	"testing"

	"orch/engine/api"
	"orch/engine/state"
)

func TestTraffic(t *testing.T) {
	op := func(kind string, count int32, ok bool) *api.Op { return &api.Op{Kind: kind, Count: count, Ok: ok} }
	for name, c := range map[string]struct {
		r       *api.Rollout
		percent uint32
		steered bool
	}{
		"no rollout":     {},
		"not steered":    {r: &api.Rollout{Journal: []*api.Op{op("surge", 3, true)}}},
		"steered":        {&api.Rollout{Journal: []*api.Op{op("traffic", 10, true), op("surge", 3, true)}}, 10, true},
		"again":          {&api.Rollout{Journal: []*api.Op{op("traffic", 10, true), op("traffic", 0, true)}}, 0, true},
		"goes back":      {&api.Rollout{Phase: "rollback", Journal: []*api.Op{op("traffic", 10, true)}}, 0, true},
		"paused":         {&api.Rollout{Outcome: "paused", Journal: []*api.Op{op("traffic", 10, true)}}, 10, true},
		"over":           {r: &api.Rollout{Outcome: "succeeded", Journal: []*api.Op{op("traffic", 10, true)}}},
		"over, and back": {r: &api.Rollout{Outcome: "rolled_back", Phase: "rollback", Journal: []*api.Op{op("traffic", 10, true)}}},
	} {
		if percent, steered := state.Traffic(c.r); percent != c.percent || steered != c.steered {
			t.Errorf("%s: %d, %v", name, percent, steered)
		}
	}
}

package rollout

import (
	"errors"

	"orch/engine/api"
)

// Question is all that a strategy's next op depends on. It holds neither the
// time nor anything that changes while the rollout is under way, so that the
// same question has the same answer on any engine.
type Question struct {
	// Rollout is the record: of it, Policy (strategy, params), From, To and
	// ApiVersion matter, and Id to say whose it is. Its own journal doesn't.
	Rollout *api.Rollout
	// Journal is what came of the strategy's ops so far, the engine's own left
	// out. The first is "begin", which pins slots, replicas, nodes and places;
	// all have ended.
	Journal []*api.Op
	// Bundle holds the strategy; nil: it is the library's.
	Bundle *api.Bundle
	// ParamsJson are the release's, which the bundle was evaluated with.
	ParamsJson string
}

// Strategy says which op comes after the ones in the journal: its kind and
// what else api.Op says a strategy asks for. Any error but ErrPending and
// ErrUnavailable freezes the rollout until an operator comes.
type Strategy interface {
	Next(Question) (*api.Op, error)
}

// ErrPending says that the answer isn't known yet: look again once told.
var ErrPending = errors.New("the strategy is being asked")

// ErrUnavailable marks that nobody could ask the strategy, for no fault of its
// own: ask again.
var ErrUnavailable = errors.New("cannot ask the strategy")

// Prober asks the world outside. The sample of a key, once there, stays; nil:
// it isn't there yet, look again once told.
type Prober interface {
	Probe(key string, ask ProbeOf) *api.Sample
}

// ProbeOf is a probe and what it is about.
type ProbeOf struct {
	Probe   *api.Probe
	Service string   // id
	Tasks   []string // ids of ready tasks of the new version, for exec
}

// Library is the strategy of a policy that names none.
const Library = "@orch//rollout.star:rolling"

// APIVersion is that of the ops which this engine knows.
const APIVersion = 1

// MaxOps is how many ops a rollout may take.
const MaxOps = 4096

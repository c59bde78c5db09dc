package operator

import (
	"time"

	"google.golang.org/protobuf/proto"

	"orch/engine/api"
	"orch/engine/simulate"
	"orch/engine/spec"
)

// put is the command that commits a draft.
func (d *draft) put() *api.PutRelease {
	versions := map[string]string{}
	for _, svc := range d.release.Spec.Services {
		versions[svc.Name] = spec.Version(svc.Task)
	}
	return &api.PutRelease{Release: d.release, Bundle: d.bundle, Versions: versions, Secrets: d.secrets, BaseRelease: d.base}
}

// hash identifies a draft's specification. Secrets that come into being with
// it have no digest in that: each evaluation would make others.
func (d *draft) hash() string {
	s := d.release.Spec
	if len(d.secrets) == 0 {
		return spec.Hash(s)
	}
	s = proto.CloneOf(s)
	fresh := map[string]bool{}
	for _, x := range d.secrets {
		fresh[x.Name] = true
	}
	for _, x := range s.Secrets {
		if fresh[x.Name] {
			x.Digest = ""
		}
	}
	for _, svc := range s.Services {
		for _, ref := range svc.Task.Secrets {
			if fresh[ref.Name] {
				ref.Digest = ""
			}
		}
	}
	return spec.Hash(s)
}

// plan says what a draft would do: its changes, and, by a look ahead on a copy
// of the cluster, the ops of its rollouts and where new tasks would land.
func (s *Server) plan(d *draft) (*api.Plan, error) {
	p := &api.Plan{
		Stack: d.release.Stack, BaseRelease: d.base, SpecHash: d.hash(), Changes: d.changes,
		Spec: d.release.Spec, Warnings: d.warnings, BundleHash: d.release.BundleHash, ParamsJson: d.release.ParamsJson,
	}
	if len(d.changes) > 0 {
		var err error
		if p.Rollouts, p.Tasks, err = simulate.Ahead(s.Store.View(), proto.CloneOf(d.put()), s.Strategy, time.Now()); err != nil {
			return nil, err
		}
	}
	p.Hash = planHash(p)
	return p, nil
}

// planHash identifies what an operator agrees to: the specification, the
// release that it comes after, and the ops. Where tasks land may change from
// one moment to the next, and isn't part of it.
func planHash(p *api.Plan) string {
	agreed := &api.Plan{Stack: p.Stack, BaseRelease: p.BaseRelease, SpecHash: p.SpecHash, BundleHash: p.BundleHash, ParamsJson: p.ParamsJson}
	for _, r := range p.Rollouts {
		agreed.Rollouts = append(agreed.Rollouts, &api.PlannedRollout{Service: r.Service, Strategy: r.Strategy, Ops: r.Ops, Outcome: r.Outcome})
	}
	return spec.Hash(agreed)
}

// stale says which part of a plan no longer holds.
func stale(asked *api.ApplyRequest, now *api.Plan) string {
	switch {
	case asked.BaseRelease != now.BaseRelease:
		return "another release came since"
	case asked.SpecHash != "" && asked.SpecHash != now.SpecHash:
		return "the playbook or its parameters are others"
	}
	return "the ops of its rollouts are others"
}

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"orch/engine/api"
	"orch/playbooks"
)

// planFile is what `orch plan --out` keeps for `orch run --plan`: what was
// agreed to, and the sources, so that nothing is read anew.
type planFile struct {
	Format  int             `json:"format"`
	Cluster string          `json:"cluster"` // id
	Plan    json.RawMessage `json:"plan"`
	Bundle  []byte          `json:"bundle"` // protobuf
}

const planFormat = 1

// writePlan keeps a plan. It holds no secret: plans never do.
func writePlan(path, cluster string, p *api.Plan, b *api.Bundle) error {
	p = proto.CloneOf(p)
	p.Spec = nil // it is evaluated again, and has to come to the same
	plan, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(p)
	if err != nil {
		return err
	}
	bundle, err := proto.Marshal(b)
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(planFile{Format: planFormat, Cluster: cluster, Plan: plan, Bundle: bundle}, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("cannot keep the plan: %w", err)
	}
	return nil
}

// readPlan opens what writePlan wrote.
func readPlan(path string) (cluster string, p *api.Plan, b *api.Bundle, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", nil, nil, &exitError{2, "orch: cannot read the plan: " + err.Error()}
	}
	damaged := func(why string) error {
		return &exitError{2, fmt.Sprintf("orch: %s is no plan of this orch (%s): make one with `orch plan PLAYBOOK --out %s`", path, why, path)}
	}
	var f planFile
	if err := json.Unmarshal(text, &f); err != nil {
		return "", nil, nil, damaged(err.Error())
	}
	if f.Format != planFormat {
		return "", nil, nil, damaged(fmt.Sprintf("format %d", f.Format))
	}
	p, b = &api.Plan{}, &api.Bundle{}
	if err := protojson.Unmarshal(f.Plan, p); err != nil {
		return "", nil, nil, damaged(err.Error())
	}
	if err := proto.Unmarshal(f.Bundle, b); err != nil {
		return "", nil, nil, damaged(err.Error())
	}
	if p.Hash == "" || b.Hash != p.BundleHash || playbooks.BundleHash(b) != b.Hash {
		return "", nil, nil, damaged("what it holds doesn't fit together")
	}
	return f.Cluster, p, b, nil
}

// planned is what to apply so that exactly a plan is done; path, if given,
// is the playbook that it must be of.
func (o *runOptions) planned(ctx context.Context, client clusterClient, r *playbooks.Result) (*api.ApplyRequest, error) {
	cluster, p, b, err := readPlan(o.plan)
	if err != nil {
		return nil, err
	}
	info, err := client.Info(ctx, connect.NewRequest(&api.InfoRequest{}))
	if err != nil {
		return nil, err
	}
	if id := info.Msg.Cluster.GetId(); id != cluster {
		return nil, &exitError{1, fmt.Sprintf("orch: the plan in %s was made for another cluster; see `orch context ls`", o.plan)}
	}
	switch {
	case r == nil:
	case r.Bundle.Hash != b.Hash:
		return nil, &exitError{1, fmt.Sprintf("orch: the playbook isn't the one that the plan in %s was made of; leave it out to run the plan, or plan again", o.plan)}
	case r.ParamsJSON != p.ParamsJson:
		return nil, &exitError{1, fmt.Sprintf("orch: the plan in %s was made with other parameters: %s, not %s; leave the playbook out to run the plan, or plan again", o.plan, orNone(p.ParamsJson), orNone(r.ParamsJSON))}
	}
	return &api.ApplyRequest{Bundle: b, ParamsJson: p.ParamsJson, BaseRelease: p.BaseRelease, SpecHash: p.SpecHash, PlanHash: p.Hash}, nil
}

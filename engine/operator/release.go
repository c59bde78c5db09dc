package operator

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"orch/engine/api"
	"orch/engine/ca"
	"orch/engine/seal"
	"orch/engine/spec"
	"orch/engine/state"
)

// draft is a release that isn't committed.
type draft struct {
	release  *api.Release
	bundle   *api.Bundle
	base     uint64
	secrets  []*api.SecretValue
	changes  []*api.Change
	warnings []string
	// A removed or stopped stack comes back even with nothing changed.
	revive bool
}

func (s *Server) Plan(ctx context.Context, r *connect.Request[api.PlanRequest]) (*connect.Response[api.PlanResponse], error) {
	d, err := s.evaluate(ctx, r.Msg.Bundle, r.Msg.ParamsJson)
	if err != nil {
		return nil, err
	}
	plan, err := s.plan(d)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&api.PlanResponse{Plan: plan}), nil
}

func (s *Server) Apply(ctx context.Context, r *connect.Request[api.ApplyRequest]) (*connect.Response[api.ApplyResponse], error) {
	d, err := s.evaluate(ctx, r.Msg.Bundle, r.Msg.ParamsJson)
	if err != nil {
		return nil, err
	}
	if want := r.Msg.SpecHash; want != "" && (want != d.hash() || r.Msg.BaseRelease != d.base) {
		return nil, connect.NewError(connect.CodeAborted, fmt.Errorf("the plan is stale: stack %q or the playbook has changed since it was made; plan again", d.release.Stack))
	}
	if want := r.Msg.PlanHash; want != "" {
		plan, err := s.plan(d)
		if err != nil {
			return nil, err
		}
		if plan.Hash != want {
			return nil, connect.NewError(connect.CodeAborted, fmt.Errorf("what would be done to stack %q is no longer what the plan says: %s; plan again", d.release.Stack, stale(r.Msg, plan)))
		}
	}
	d.release.Cause = "run"
	return s.commit(ctx, d)
}

// evaluate makes a draft from a bundle.
func (s *Server) evaluate(ctx context.Context, b *api.Bundle, params string) (*draft, error) {
	if b == nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("there is no bundle"))
	}
	stack, warnings, err := s.Evaluator.Evaluate(ctx, b, params)
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	d := &draft{bundle: b, warnings: warnings, release: &api.Release{Stack: stack.Name, BundleHash: b.Hash, ParamsJson: params, Spec: stack}}
	return d, s.complete(ctx, d)
}

// complete validates a draft's spec and fills in what only the cluster knows.
func (s *Server) complete(ctx context.Context, d *draft) error {
	stack := d.release.Spec
	spec.Normalize(stack)
	if err := spec.Validate(stack); err != nil {
		return connect.NewError(connect.CodeInvalidArgument, err)
	}
	d.release.By = ca.From(ctx).ID
	v := s.Store.View()
	if err := s.elsewhere(v, stack); err != nil {
		return err
	}
	if err := s.secrets(v, d); err != nil {
		return err
	}
	st := v.Stack(stack.Name)
	d.base = st.GetRelease()
	d.revive = st.GetStopped() || st.GetRemoved()
	var old *api.StackSpec
	if st != nil && !st.Removed {
		old = effective(v, st)
		keepGenerations(v, stack)
	}
	d.changes = spec.Changes(old, stack)
	return nil
}

// current is the release that a stack runs, or is being brought to: its newest,
// unless that was taken back or ended otherwise than well.
func current(v state.View, st *api.Stack) *api.Release {
	newest := v.Release(st.Name, st.Release)
	if o := newest.GetOutcome(); o != "" && o != "succeeded" {
		if stable := v.Release(st.Name, st.StableRelease); stable != nil {
			return stable
		}
	}
	return newest
}

// effective is what a stack runs, or is being brought to: its current release,
// with the services that went other ways as they are now.
func effective(v state.View, st *api.Stack) *api.StackSpec {
	newest := current(v, st)
	if newest == nil {
		return nil
	}
	declared := map[string]bool{}
	for _, svc := range newest.Spec.Services {
		declared[svc.Name] = true
	}
	s := &api.StackSpec{
		Name: newest.Spec.Name, Networks: newest.Spec.Networks, Volumes: newest.Spec.Volumes, Secrets: newest.Spec.Secrets,
		Configs: newest.Spec.Configs, OnFailure: newest.Spec.OnFailure, MaxParallel: newest.Spec.MaxParallel, Labels: newest.Spec.Labels,
	}
	for _, svc := range v.ServicesOf(st.Name) {
		switch r := v.Rollout(svc.RolloutId); {
		case svc.Removed, !declared[svc.Name] && newest.Outcome == "":
		case r.GetOutcome() == "" && r.GetPhase() == "forward" && r.To != nil:
			s.Services = append(s.Services, r.To)
		default:
			s.Services = append(s.Services, svc.Spec)
		}
	}
	return s
}

// keepGenerations lets a release not undo `orch service restart`.
func keepGenerations(v state.View, stack *api.StackSpec) {
	for _, svc := range stack.Services {
		if old := v.Service(spec.ServiceID(stack.Name, svc.Name)); old != nil {
			svc.Task.Generation = max(svc.Task.Generation, old.Spec.Task.GetGeneration())
		}
	}
}

// elsewhere refuses ports that another stack publishes.
func (s *Server) elsewhere(v state.View, stack *api.StackSpec) error {
	var problems []error
	for _, other := range v.Services() {
		if other.Stack == stack.Name || other.Removed || v.Stack(other.Stack).GetStopped() {
			continue
		}
		for _, theirs := range other.Spec.Ports {
			for _, svc := range stack.Services {
				for _, ours := range svc.Ports {
					if ours.Publish > 0 && ours.Publish == theirs.Publish && (ours.Protocol == "udp") == (theirs.Protocol == "udp") {
						problems = append(problems, spec.Problem{Origin: ours.Origin, Text: fmt.Sprintf(
							"service %q publishes port %d, which service %q publishes already", svc.Name, ours.Publish, other.Id)})
					}
				}
			}
		}
	}
	if len(problems) > 0 {
		return connect.NewError(connect.CodeInvalidArgument, errors.Join(problems...))
	}
	return nil
}

// secrets fills in the digests of the values that tasks will get, and
// generates those that are to be generated and aren't there yet.
func (s *Server) secrets(v state.View, d *draft) error {
	stack := d.release.Spec
	digests := map[string]string{}
	for _, sec := range stack.Secrets {
		where := stack.Name
		if sec.External {
			where = ""
		}
		value := v.CurrentSecret(where, sec.Name)
		switch {
		case value != nil:
		case sec.External || sec.Generate == 0:
			return connect.NewError(connect.CodeFailedPrecondition, spec.Problem{Origin: sec.Origin, Text: fmt.Sprintf(
				"secret %q has no value yet: make it with `orch secret create %s FILE`", sec.Name, sec.Name)})
		default:
			var err error
			if value, err = s.generate(stack.Name, sec); err != nil {
				return connect.NewError(connect.CodeInternal, err)
			}
			d.secrets = append(d.secrets, value)
		}
		sec.Digest = value.Digest
		digests[sec.Name] = value.Digest
	}
	for _, svc := range stack.Services {
		for _, ref := range svc.Task.Secrets {
			ref.Digest = digests[ref.Name]
		}
	}
	return nil
}

const alphabet = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789"

func (s *Server) generate(stack string, sec *api.SecretSpec) (*api.SecretValue, error) {
	text := make([]byte, 0, sec.Generate)
	buf := make([]byte, 1)
	for len(text) < int(sec.Generate) {
		if _, err := rand.Read(buf); err != nil {
			return nil, err
		}
		if int(buf[0]) < 256/len(alphabet)*len(alphabet) { // else some letters would come more often
			text = append(text, alphabet[int(buf[0])%len(alphabet)])
		}
	}
	return sealed(s.Key, stack, sec.Name, text)
}

func sealed(key seal.Key, stack, name string, value []byte) (*api.SecretValue, error) {
	id := state.SecretID(stack, name)
	data, err := key.Seal(id, value)
	if err != nil {
		return nil, err
	}
	return &api.SecretValue{Stack: stack, Name: name, Digest: key.Digest(id, value), Sealed: data}, nil
}

// commit puts a draft into the log, unless it changes nothing.
func (s *Server) commit(ctx context.Context, d *draft) (*connect.Response[api.ApplyResponse], error) {
	out := &api.ApplyResponse{Stack: d.release.Stack, Release: d.base, Changes: d.changes, Warnings: d.warnings}
	if len(d.changes) == 0 && d.base > 0 && !d.revive && !s.stuck(d.release.Stack) {
		return connect.NewResponse(out), nil
	}
	r, err := s.propose(ctx, &api.Command{Kind: &api.Command_PutRelease{PutRelease: d.put()}})
	if err != nil {
		return nil, err
	}
	out.Release, out.Changed = r.Release, true
	return connect.NewResponse(out), nil
}

// stuck says that the newest release of a stack didn't end well, or stands
// still, so that the same release again is a retry.
func (s *Server) stuck(stack string) bool {
	v := s.Store.View()
	r := v.Release(stack, v.Stack(stack).GetRelease())
	if o := r.GetOutcome(); o != "" {
		return o != "succeeded"
	}
	return slices.ContainsFunc(v.ServicesOf(stack), func(svc *api.Service) bool {
		return state.Halted(v.Rollout(svc.RolloutId))
	})
}

// again makes a draft from a release that is kept.
func (s *Server) again(stack string, number uint64) (*draft, error) {
	v := s.Store.View()
	st := v.Stack(stack)
	if st == nil {
		return nil, notFound("stack", stack)
	}
	r := v.Release(stack, number)
	if r == nil {
		return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("stack %q has no release %d; `orch stack releases %s` lists those that are kept", stack, number, stack))
	}
	return &draft{release: anew(r), base: st.Release}, nil
}

// anew is a release's content as that of another one.
func anew(r *api.Release) *api.Release {
	return &api.Release{Stack: r.Stack, BundleHash: r.BundleHash, ParamsJson: r.ParamsJson, Spec: proto.CloneOf(r.Spec)}
}

// before is the release to go back to when none is named: the newest that
// ended well before the current one.
func before(v state.View, stack string) (uint64, error) {
	st := v.Stack(stack)
	if st == nil {
		return 0, notFound("stack", stack)
	}
	if newest := v.Release(stack, st.Release); newest.GetOutcome() == "rolled_back" {
		return 0, connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf(
			"release %d was taken back: stack %q runs release %d. To go back further, name the release; `orch stack releases %s` lists them", st.Release, stack, st.StableRelease, stack))
	}
	all := v.Releases(stack)
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].Number < current(v, st).GetNumber() && (all[i].Outcome == "succeeded" || all[i].Number == st.StableRelease) {
			return all[i].Number, nil
		}
	}
	return 0, connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("stack %q has no earlier release that ended well: there is nothing to roll back to", stack))
}

func (s *Server) RollbackStack(ctx context.Context, r *connect.Request[api.RollbackStackRequest]) (*connect.Response[api.ApplyResponse], error) {
	number := r.Msg.Release
	if number == 0 {
		var err error
		if number, err = before(s.Store.View(), r.Msg.Stack); err != nil {
			return nil, err
		}
	}
	d, err := s.again(r.Msg.Stack, number)
	if err != nil {
		return nil, err
	}
	if err := s.complete(ctx, d); err != nil {
		return nil, err
	}
	d.release.Cause = fmt.Sprintf("rollback to %d", number)
	return s.commit(ctx, d)
}

// amend makes a release of its own from a change to one service.
func (s *Server) amend(ctx context.Context, id string, change func(*api.ServiceSpec) (string, error)) (*connect.Response[api.ApplyResponse], error) {
	v := s.Store.View()
	svc := v.Service(id)
	if svc == nil || svc.Removed {
		return nil, notFound("service", id)
	}
	st := v.Stack(svc.Stack)
	d := &draft{release: anew(current(v, st)), base: st.Release}
	d.release.Spec = proto.CloneOf(effective(v, st))
	var err error
	for i, declared := range d.release.Spec.Services {
		if declared.Name != svc.Name {
			continue
		}
		if d.release.Cause, err = change(d.release.Spec.Services[i]); err != nil {
			return nil, connect.NewError(connect.CodeInvalidArgument, err)
		}
	}
	if err := s.complete(ctx, d); err != nil {
		return nil, err
	}
	return s.commit(ctx, d)
}

func (s *Server) ScaleService(ctx context.Context, r *connect.Request[api.ScaleServiceRequest]) (*connect.Response[api.ApplyResponse], error) {
	return s.amend(ctx, r.Msg.Service, func(svc *api.ServiceSpec) (string, error) {
		if svc.Mode != "replicated" {
			return "", fmt.Errorf("service %q is %s: only replicated services can be scaled", r.Msg.Service, svc.Mode)
		}
		if r.Msg.Replicas < 0 {
			return "", fmt.Errorf("%d replicas are less than none", r.Msg.Replicas)
		}
		cause := fmt.Sprintf("scale %s %d -> %d", svc.Name, svc.Replicas, r.Msg.Replicas)
		svc.Replicas = r.Msg.Replicas
		return cause, nil
	})
}

func (s *Server) RestartService(ctx context.Context, r *connect.Request[api.RestartServiceRequest]) (*connect.Response[api.ApplyResponse], error) {
	return s.amend(ctx, r.Msg.Service, func(svc *api.ServiceSpec) (string, error) {
		svc.Task.Generation++
		return "restart " + svc.Name, nil
	})
}

func (s *Server) SetStack(ctx context.Context, r *connect.Request[api.SetStackRequest]) (*connect.Response[api.SetStackResponse], error) {
	_, err := s.propose(ctx, &api.Command{Kind: &api.Command_SetStack{SetStack: &api.SetStack{Name: r.Msg.Name, Action: r.Msg.Action}}})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&api.SetStackResponse{}), nil
}

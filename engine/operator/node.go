package operator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"connectrpc.com/connect"

	"orch/engine/api"
	"orch/engine/ca"
	"orch/engine/schedule"
	"orch/engine/state"
)

// node finds one by its name or id.
func node(v state.View, name string) (*api.Node, error) {
	if n := v.Node(name); n != nil {
		return n, nil
	}
	for _, n := range v.Nodes() {
		if n.Name == name {
			return n, nil
		}
	}
	return nil, notFound("node", name)
}

func (s *Server) InspectNode(_ context.Context, r *connect.Request[api.InspectNodeRequest]) (*connect.Response[api.InspectNodeResponse], error) {
	v := s.Store.View()
	n, err := node(v, r.Msg.Node)
	if err != nil {
		return nil, err
	}
	out := &api.InspectNodeResponse{Node: n, Tasks: v.TasksOn(n.Id)}
	for _, e := range s.Engines.Engines() {
		if e.NodeId == n.Id {
			out.Engine = e
		}
	}
	return connect.NewResponse(out), nil
}

func (s *Server) UpdateNode(ctx context.Context, r *connect.Request[api.UpdateNodeRequest]) (*connect.Response[api.UpdateNodeResponse], error) {
	m := r.Msg
	n, err := node(s.Store.View(), m.Node)
	if err != nil {
		return nil, err
	}
	invalid := func(format string, args ...any) error {
		return connect.NewError(connect.CodeInvalidArgument, fmt.Errorf(format, args...))
	}
	switch {
	case m.Availability != "" && !slices.Contains([]string{"active", "pause", "drain"}, m.Availability):
		return nil, invalid("a node is active, paused or drained, not %q", m.Availability)
	case m.Role != "" && m.Role != string(ca.Engine) && m.Role != string(ca.Agent):
		return nil, invalid("a node's role is engine or agent, not %q", m.Role)
	}
	if err := s.mayBecome(n, ca.Role(m.Role)); err != nil {
		return nil, connect.NewError(connect.CodeFailedPrecondition, err)
	}
	set := &api.SetNode{Id: n.Id, Availability: m.Availability, Role: m.Role, Labels: m.Labels, HostKey: m.HostKey}
	if _, err := s.propose(ctx, &api.Command{Kind: &api.Command_SetNode{SetNode: set}}); err != nil {
		return nil, err
	}
	return connect.NewResponse(&api.UpdateNodeResponse{Node: s.Store.View().Node(n.Id)}), nil
}

// mayBecome says whether a node can have a role.
func (s *Server) mayBecome(n *api.Node, role ca.Role) error {
	switch {
	case role == "" || n.Role == string(role):
		return nil
	case role == ca.Agent:
		if err := s.Engines.MayLeave(n.Id); err != nil {
			return fmt.Errorf("node %q can't be demoted: %w", n.Name, err)
		}
	case n.EngineAddress == "":
		return fmt.Errorf("node %q can't become an engine: it has no address where the others would reach it; restart its orch with --advertise HOST:PORT", n.Name)
	case n.Status != "up":
		return fmt.Errorf("node %q can't become an engine: it is %s", n.Name, n.Status)
	}
	return nil
}

func (s *Server) DeleteNode(ctx context.Context, r *connect.Request[api.DeleteNodeRequest]) (*connect.Response[api.DeleteNodeResponse], error) {
	n, err := node(s.Store.View(), r.Msg.Node)
	if err != nil {
		return nil, err
	}
	if n.Status == "up" && !r.Msg.Force {
		return nil, connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("node %q is up: `orch cluster leave` on its host takes it out in order; --force removes it as it is, and its tasks are stopped", n.Name))
	}
	if n.Role == string(ca.Engine) {
		if err := s.Engines.MayLeave(n.Id); err != nil {
			return nil, connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("node %q can't be removed: %w", n.Name, err))
		}
	}
	if _, err := s.propose(ctx, &api.Command{Kind: &api.Command_RemoveNode{RemoveNode: &api.RemoveNode{Id: n.Id}}}); err != nil {
		return nil, err
	}
	return connect.NewResponse(&api.DeleteNodeResponse{}), nil
}

func (s *Server) CreateToken(ctx context.Context, r *connect.Request[api.CreateTokenRequest]) (*connect.Response[api.CreateTokenResponse], error) {
	out, err := s.Desk.Token(ctx, r.Msg, ca.From(ctx).ID)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(out), nil
}

func (s *Server) Admit(ctx context.Context, r *connect.Request[api.AdmitRequest]) (*connect.Response[api.Membership], error) {
	m := r.Msg
	if n := s.Store.View().Node(m.NodeId); n != nil {
		if err := s.mayBecome(n, ca.Role(m.Role)); err != nil {
			return nil, connect.NewError(connect.CodeFailedPrecondition, err)
		}
	}
	out, err := s.Desk.Admit(ctx, m)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(out), nil
}

func (s *Server) Rebalance(ctx context.Context, r *connect.Request[api.RebalanceRequest]) (*connect.Response[api.RebalanceResponse], error) {
	v := s.Store.View()
	if name := r.Msg.Stack; name != "" && v.Stack(name) == nil {
		return nil, notFound("stack", name)
	}
	out, changes := &api.RebalanceResponse{}, &api.Changes{}
	for _, m := range schedule.Rebalance(v, r.Msg.Stack) {
		out.Moves = append(out.Moves, m)
		changes.Change = append(changes.Change, &api.TaskChange{Id: m.TaskId, Move: m.Reason})
	}
	if r.Msg.DryRun || len(out.Moves) == 0 {
		return connect.NewResponse(out), nil
	}
	if _, err := s.propose(ctx, &api.Command{Kind: &api.Command_Changes{Changes: changes}}); err != nil {
		return nil, err
	}
	return connect.NewResponse(out), nil
}

var errNoOperator = errors.New("only operators have an operator's certificate")

func (s *Server) AddOperator(ctx context.Context, r *connect.Request[api.AddOperatorRequest]) (*connect.Response[api.OperatorCredentials], error) {
	m := r.Msg
	o, err := operatorRow(m, ca.From(ctx).ID)
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	if old := s.Store.View().Operator(m.Name); old != nil && old.KeyDigest != o.KeyDigest {
		return nil, connect.NewError(connect.CodeAlreadyExists, fmt.Errorf("operator %q exists already, with another key: `orch operator rm` it first", m.Name))
	}
	if _, err := s.propose(ctx, &api.Command{Kind: &api.Command_PutOperator{PutOperator: o}}); err != nil {
		return nil, err
	}
	life := ca.OperatorLife
	if m.Valid != nil {
		life = m.Valid.AsDuration()
	}
	return s.credentials(o, m.Csr, life)
}

func (s *Server) credentials(o *api.Operator, csr []byte, life time.Duration) (*connect.Response[api.OperatorCredentials], error) {
	if life <= 0 {
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("a certificate can't be valid for %s", life))
	}
	out, err := s.Desk.Operator(o, csr, ca.Subject{Life: life})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(out), nil
}

func operatorRow(m *api.AddOperatorRequest, by string) (*api.Operator, error) {
	public, err := ca.ParseRequest(m.Csr)
	if err != nil {
		return nil, err
	}
	digest, err := ca.KeyDigest(public)
	switch {
	case err != nil:
		return nil, err
	case m.Name == "":
		return nil, errors.New("an operator needs a name")
	case !slices.Contains([]string{"admin", "deploy", "view"}, m.Role):
		return nil, fmt.Errorf("an operator's role is admin, deploy or view, not %q", m.Role)
	}
	return &api.Operator{Name: m.Name, Role: m.Role, KeyDigest: digest, CreatedAt: now(), CreatedBy: by}, nil
}

func (s *Server) ListOperators(context.Context, *connect.Request[api.ListOperatorsRequest]) (*connect.Response[api.ListOperatorsResponse], error) {
	return connect.NewResponse(&api.ListOperatorsResponse{Operators: s.Store.View().Operators()}), nil
}

func (s *Server) DeleteOperator(ctx context.Context, r *connect.Request[api.DeleteOperatorRequest]) (*connect.Response[api.DeleteOperatorResponse], error) {
	if _, err := s.propose(ctx, &api.Command{Kind: &api.Command_RemoveOperator{RemoveOperator: &api.RemoveOperator{Name: r.Msg.Name}}}); err != nil {
		return nil, err
	}
	return connect.NewResponse(&api.DeleteOperatorResponse{}), nil
}

func (s *Server) RenewOperator(ctx context.Context, r *connect.Request[api.RenewOperatorRequest]) (*connect.Response[api.OperatorCredentials], error) {
	who := ca.From(ctx)
	o := s.Store.View().Operator(who.ID)
	if who.Local || o == nil {
		return nil, connect.NewError(connect.CodeFailedPrecondition, errNoOperator)
	}
	public, err := ca.ParseRequest(r.Msg.Csr)
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	if digest, err := ca.KeyDigest(public); err != nil || digest != o.KeyDigest {
		return nil, connect.NewError(connect.CodePermissionDenied, fmt.Errorf("operator %q has another key", o.Name))
	}
	return s.credentials(o, r.Msg.Csr, ca.OperatorLife)
}

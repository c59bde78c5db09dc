package enroll

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"orch/engine/api"
	"orch/engine/ca"
	"orch/engine/state"
)

// TokenLife is how long a join token is good for unless asked otherwise.
const TokenLife = time.Hour

// Token makes a join token.
func (d *Desk) Token(ctx context.Context, r *api.CreateTokenRequest, by string) (*api.CreateTokenResponse, error) {
	role := ca.Role(r.Role)
	if role != ca.Engine && role != ca.Agent {
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("a token lets in an engine or an agent, not %q", r.Role))
	}
	life := TokenLife
	if r.Valid != nil {
		if life = r.Valid.AsDuration(); life <= 0 {
			return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("a token can't be valid for %s", life))
		}
	}
	if r.Rotate {
		if err := d.propose(ctx, removeTokens(&api.RemoveTokens{Role: r.Role})); err != nil {
			return nil, err
		}
	}
	if err := d.propose(ctx, removeTokens(&api.RemoveTokens{Expired: true})); err != nil {
		return nil, err
	}
	v := d.Store.View()
	t := ca.NewToken(role, ca.Digest(v.Cluster().GetTrust().GetCurrent().GetCertificate()))
	now := time.Now()
	row := &api.JoinToken{Id: t.ID, Role: r.Role, Hash: t.Hash(), CreatedAt: timestamppb.New(now), ExpiresAt: timestamppb.New(now.Add(life)), CreatedBy: by}
	if err := d.propose(ctx, &api.Command{Kind: &api.Command_PutToken{PutToken: row}}); err != nil {
		return nil, err
	}
	return &api.CreateTokenResponse{Token: t.String(), Engines: Engines(v), ExpiresAt: row.ExpiresAt}, nil
}

func removeTokens(r *api.RemoveTokens) *api.Command {
	return &api.Command{Kind: &api.Command_RemoveTokens{RemoveTokens: r}}
}

// Join implements api.NodeService.
func (d *Desk) Join(ctx context.Context, r *connect.Request[api.JoinRequest]) (*connect.Response[api.Membership], error) {
	m := r.Msg
	t, err := ca.ParseToken(m.Token)
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	row := d.Store.View().Token(t.ID)
	switch {
	case row == nil || !t.Matches(row.Hash) || row.Role != string(t.Role):
		return nil, connect.NewError(connect.CodePermissionDenied, errors.New("the join token is not, or no longer, valid: `orch cluster token` makes a new one"))
	case time.Now().After(row.ExpiresAt.AsTime()):
		return nil, connect.NewError(connect.CodePermissionDenied, fmt.Errorf("the join token expired at %s: `orch cluster token` makes a new one", row.ExpiresAt.AsTime().Format(time.RFC3339)))
	}
	// Who is a node already keeps its role: tokens don't promote.
	role := row.Role
	if n := d.Store.View().Node(m.NodeId); n != nil {
		role = n.Role
	}
	out, err := d.Admit(ctx, &api.AdmitRequest{Csr: m.Csr, NodeId: m.NodeId, Name: m.Name, Role: role, EngineAddress: m.EngineAddress})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(out), nil
}

// Renew implements api.NodeService.
func (d *Desk) Renew(ctx context.Context, r *connect.Request[api.RenewRequest]) (*connect.Response[api.Membership], error) {
	out, err := d.Sign(ca.From(ctx).ID, r.Msg.Csr)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(out), nil
}

// Announce implements api.NodeService.
func (d *Desk) Announce(ctx context.Context, r *connect.Request[api.AnnounceRequest]) (*connect.Response[api.AnnounceResponse], error) {
	r.Msg.NodeId = ca.From(ctx).ID
	v := d.Store.View()
	if n := v.Node(r.Msg.NodeId); n != nil && n.EngineAddress != r.Msg.Address {
		if err := d.propose(ctx, setNode(&api.SetNode{Id: n.Id, EngineAddress: r.Msg.Address})); err != nil {
			return nil, err
		}
	}
	d.Heard(r.Msg)
	return connect.NewResponse(&api.AnnounceResponse{Membership: Membership(d.Store.View(), r.Msg.NodeId)}), nil
}

func setNode(s *api.SetNode) *api.Command {
	return &api.Command{Kind: &api.Command_SetNode{SetNode: s}}
}

// unlockName is the name that the unlock key is sealed under.
const unlockName = "unlock"

// Keys implements api.NodeService.
func (d *Desk) Keys(context.Context, *connect.Request[api.KeysRequest]) (*connect.Response[api.KeysResponse], error) {
	out := &api.KeysResponse{DataKey: d.Key[:]}
	var err error
	if out.UnlockKey, err = d.UnlockKey(d.Store.View()); err != nil {
		return nil, err
	}
	return connect.NewResponse(out), nil
}

// UnlockKey is what engines lock their keys with; nil: they don't.
func (d *Desk) UnlockKey(v state.View) ([]byte, error) {
	sealed := v.Cluster().GetUnlockKey()
	if len(sealed) == 0 {
		return nil, nil
	}
	return d.Key.Open(unlockName, sealed)
}

// SetUnlockKey lets all engines lock their keys with key; nil: no longer.
func (d *Desk) SetUnlockKey(ctx context.Context, key []byte) error {
	set := &api.SetCluster{Generation: d.Store.View().Cluster().GetGeneration(), ClearUnlockKey: key == nil}
	if key != nil {
		var err error
		if set.UnlockKey, err = d.Key.Seal(unlockName, key); err != nil {
			return err
		}
	}
	return d.propose(ctx, &api.Command{Kind: &api.Command_SetCluster{SetCluster: set}})
}

// Leave implements api.NodeService.
func (d *Desk) Leave(ctx context.Context, _ *connect.Request[api.LeaveRequest]) (*connect.Response[api.LeaveResponse], error) {
	id := ca.From(ctx).ID
	if err := d.MayLeave(id); err != nil {
		return nil, connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("this node can't leave: %w", err))
	}
	if err := d.propose(ctx, &api.Command{Kind: &api.Command_RemoveNode{RemoveNode: &api.RemoveNode{Id: id}}}); err != nil {
		return nil, err
	}
	if err := d.Gone(ctx, id); err != nil {
		return nil, connect.NewError(connect.CodeUnavailable, fmt.Errorf("this node is removed, but the engines still count its vote: %w", err))
	}
	return connect.NewResponse(&api.LeaveResponse{}), nil
}

package enroll

import (
	"cmp"
	"context"
	"crypto"
	"errors"
	"fmt"
	"slices"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"orch/engine/api"
	"orch/engine/ca"
	"orch/engine/seal"
	"orch/engine/state"
)

// Store is what a desk needs of the replicated state.
type Store interface {
	Propose(context.Context, *api.Command) (state.Result, error)
	View() state.View
}

// Desk signs certificates.
type Desk struct {
	Store Store
	Key   seal.Key // of the cluster's data
	// Heard is told what an engine says of itself.
	Heard func(*api.AnnounceRequest)
	// MayLeave is an error if the engines couldn't go on without one.
	MayLeave func(node string) error
	// Gone returns once a removed node is no voter any more.
	Gone func(ctx context.Context, node string) error
}

const keyName = "ca" // the name that the CA's key is sealed under

// Found is the first trust of a cluster: the CA in the hands of its founder.
func Found(certificate, key []byte, data seal.Key) (*api.Trust, error) {
	sealed, err := data.Seal(keyName, key)
	if err != nil {
		return nil, err
	}
	return &api.Trust{Current: &api.Root{Certificate: certificate, Key: sealed}, Since: timestamppb.Now()}, nil
}

func (d *Desk) authority(r *api.Root) (*ca.Authority, error) {
	if r == nil {
		return nil, connect.NewError(connect.CodeUnavailable, errors.New("the cluster has no CA yet"))
	}
	key, err := d.Key.Open(keyName, r.Key)
	if err != nil {
		return nil, err
	}
	return ca.Parse(r.Certificate, key)
}

// Roots are the certificates (DER) to trust, the one that signs first.
func Roots(t *api.Trust) [][]byte {
	var all [][]byte
	for _, r := range []*api.Root{t.GetCurrent(), t.GetNext(), t.GetPrevious()} {
		if r != nil {
			all = append(all, r.Certificate)
		}
	}
	return all
}

// Engines are the cluster's engines by name.
func Engines(v state.View) []*api.Peer {
	var all []*api.Peer
	for _, n := range v.Nodes() {
		if n.Role == string(ca.Engine) && n.EngineAddress != "" {
			all = append(all, &api.Peer{NodeId: n.Id, Name: n.Name, Address: n.EngineAddress})
		}
	}
	slices.SortFunc(all, func(a, b *api.Peer) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// Membership is what a node is told of the cluster, without a certificate;
// nil where it is none.
func Membership(v state.View, node string) *api.Membership {
	n, c := v.Node(node), v.Cluster()
	if n == nil || c.GetTrust() == nil {
		return nil
	}
	current := ca.Digest(c.Trust.Current.GetCertificate())
	issuer := n.Facts.GetIssuer()
	return &api.Membership{
		ClusterId: c.Id, ClusterName: c.Name, NodeId: n.Id, Name: n.Name, Role: n.Role,
		Roots: Roots(c.Trust), Bridges: c.Trust.Bridges, Engines: Engines(v),
		Renew: issuer != "" && issuer != current,
	}
}

// Sign makes the membership of a node with a certificate for its key.
func (d *Desk) Sign(node string, csr []byte) (*api.Membership, error) {
	v := d.Store.View()
	m := Membership(v, node)
	if m == nil {
		return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("there is no node %s", node))
	}
	public, err := ca.ParseRequest(csr)
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	digest, err := ca.KeyDigest(public)
	if err != nil || digest != v.Node(node).KeyDigest {
		return nil, connect.NewError(connect.CodePermissionDenied, fmt.Errorf("node %q has another key", m.Name))
	}
	signer, err := d.authority(v.Cluster().Trust.Current)
	if err != nil {
		return nil, err
	}
	m.Certificate, err = signer.Sign(ca.Subject{Role: ca.Role(m.Role), ID: node}, public)
	m.Renew = false
	return m, err
}

// Admit makes a host a node, or gives one that is a node already, with the
// same key, a new certificate. Labels are added to those it has.
func (d *Desk) Admit(ctx context.Context, r *api.AdmitRequest) (*api.Membership, error) {
	public, err := ca.ParseRequest(r.Csr)
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	digest, err := ca.KeyDigest(public)
	switch {
	case err != nil:
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	case r.NodeId == "" || r.Name == "":
		return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("a node needs an id and a name"))
	case r.Role != string(ca.Engine) && r.Role != string(ca.Agent):
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("a node's role is engine or agent, not %q", r.Role))
	case r.Role == string(ca.Engine) && r.EngineAddress == "":
		return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("an engine needs an address where the others reach it"))
	}
	if err := d.put(ctx, r, digest); err != nil {
		return nil, err
	}
	return d.Sign(r.NodeId, r.Csr)
}

func (d *Desk) put(ctx context.Context, r *api.AdmitRequest, digest string) error {
	old := d.Store.View().Node(r.NodeId)
	if old != nil && old.KeyDigest == digest && old.Name == r.Name {
		return d.propose(ctx, &api.Command{Kind: &api.Command_SetNode{SetNode: &api.SetNode{
			Id: r.NodeId, Labels: r.Labels, Role: r.Role, EngineAddress: r.EngineAddress, HostKey: r.HostKey,
		}}})
	}
	return d.propose(ctx, &api.Command{Kind: &api.Command_PutNode{PutNode: newNode(r, digest)}})
}

func newNode(r *api.AdmitRequest, digest string) *api.Node {
	now := timestamppb.Now()
	return &api.Node{
		Id: r.NodeId, Name: r.Name, Role: r.Role, RoleSince: now, Availability: "active", Labels: r.Labels,
		Status: "down", StatusSince: now, StatusReason: "it has not begun yet",
		EngineAddress: r.EngineAddress, KeyDigest: digest, HostKey: r.HostKey, CreatedAt: now,
	}
}

// Founder is the row of an engine that nobody admits: the first of a cluster,
// or the one that it is restored on.
func Founder(id, name, address string, public crypto.PublicKey) (*api.Node, error) {
	digest, err := ca.KeyDigest(public)
	return newNode(&api.AdmitRequest{NodeId: id, Name: name, Role: string(ca.Engine), EngineAddress: address}, digest), err
}

// propose commits a command; a refusal gets the code that tells a client
// what to do.
func (d *Desk) propose(ctx context.Context, c *api.Command) error {
	c.Time = timestamppb.Now()
	_, err := d.Store.Propose(ctx, c)
	var refusal *state.Refusal
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refusal) && refusal.Kind == state.NotFound:
		return connect.NewError(connect.CodeNotFound, err)
	case errors.As(err, &refusal):
		return connect.NewError(connect.CodeFailedPrecondition, err)
	}
	return Unavailable(err)
}

// Unavailable is what a client is told of a command that the log didn't take:
// that it may try again at once, where nothing was done.
func Unavailable(err error) error {
	out := connect.NewError(connect.CodeUnavailable, err)
	var a interface{ Again() bool }
	if errors.As(err, &a) && a.Again() {
		out.Meta().Set(api.ReasonHeader, api.ReasonAgain)
	}
	return out
}

// Operator gives an operator a certificate for the key of a request.
func (d *Desk) Operator(o *api.Operator, csr []byte, s ca.Subject) (*api.OperatorCredentials, error) {
	v := d.Store.View()
	public, err := ca.ParseRequest(csr)
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	signer, err := d.authority(v.Cluster().GetTrust().GetCurrent())
	if err != nil {
		return nil, err
	}
	s.Role, s.ID, s.Level = ca.Operator, o.Name, o.Role
	cert, err := signer.Sign(s, public)
	if err != nil {
		return nil, err
	}
	c := v.Cluster()
	return &api.OperatorCredentials{
		ClusterId: c.Id, ClusterName: c.Name, Certificate: cert, Roots: Roots(c.Trust), Bridges: c.Trust.Bridges,
		Engines: Engines(v), Role: o.Role,
	}, nil
}

// trusts says whether a node has said that it trusts a root.
func trusts(n *api.Node, root *api.Root) bool {
	return slices.Contains(n.Facts.GetRoots(), ca.Digest(root.GetCertificate()))
}

package enroll

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"orch/engine/api"
	"orch/engine/ca"
	"orch/engine/state"
)

// Rotate begins to replace the CA. Step goes on with it.
func (d *Desk) Rotate(ctx context.Context) error {
	c := d.Store.View().Cluster()
	if t := c.GetTrust(); t.GetNext() != nil || t.GetPrevious() != nil {
		return connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("the CA is being replaced already: %s", Progress(d.Store.View())))
	}
	next, err := ca.New()
	if err != nil {
		return err
	}
	key, err := next.Key()
	if err != nil {
		return err
	}
	sealed, err := d.Key.Seal(keyName, key)
	if err != nil {
		return err
	}
	t := proto.CloneOf(c.GetTrust())
	t.Next, t.Since = &api.Root{Certificate: next.Certificate(), Key: sealed}, timestamppb.Now()
	return d.setTrust(ctx, c, t)
}

func (d *Desk) setTrust(ctx context.Context, c *api.Cluster, t *api.Trust) error {
	return d.propose(ctx, &api.Command{Kind: &api.Command_SetCluster{SetCluster: &api.SetCluster{Generation: c.GetGeneration(), Trust: t}}})
}

// keptBridges is how many CAs back a node may have been away.
const keptBridges = 8

// Step takes the rotation one step further if all nodes that are up are
// ready for it; the others come back over the bridges. It does nothing where
// there is nothing to do.
func (d *Desk) Step(ctx context.Context) error {
	v := d.Store.View()
	c := v.Cluster()
	t := c.GetTrust()
	if t.GetNext() == nil && t.GetPrevious() == nil || len(Lagging(v)) > 0 {
		return nil
	}
	t = proto.CloneOf(t)
	t.Since = timestamppb.Now()
	if t.Previous != nil {
		t.Previous = nil
		if err := d.setTrust(ctx, c, t); err != nil {
			return err
		}
		// They pin the old CA.
		return errors.Join(d.propose(ctx, removeTokens(&api.RemoveTokens{Role: string(ca.Agent)})), d.propose(ctx, removeTokens(&api.RemoveTokens{Role: string(ca.Engine)})))
	}
	old, err := d.authority(t.Current)
	if err != nil {
		return err
	}
	next, err := d.authority(t.Next)
	if err != nil {
		return err
	}
	bridge, err := old.Bridge(next)
	if err != nil {
		return err
	}
	t.Bridges = append([][]byte{bridge}, t.Bridges...)
	if len(t.Bridges) > keptBridges {
		t.Bridges = t.Bridges[:keptBridges]
	}
	t.Current, t.Previous, t.Next = t.Next, t.Current, nil
	return d.setTrust(ctx, c, t)
}

// Lagging are the names of the nodes that are up and not ready for the next
// step: those that don't trust the next CA yet, or have a certificate of the
// previous one.
func Lagging(v state.View) []string {
	t := v.Cluster().GetTrust()
	var names []string
	for _, n := range v.Nodes() {
		switch {
		case n.Status != "up":
		case t.GetNext() != nil && !trusts(n, t.Next),
			t.GetNext() == nil && t.GetPrevious() != nil && n.Facts.GetIssuer() != ca.Digest(t.Current.GetCertificate()):
			names = append(names, n.Name)
		}
	}
	return names
}

// Progress says in words how far a rotation is; "stable" without one.
func Progress(v state.View) string {
	t := v.Cluster().GetTrust()
	wait := func(what string) string {
		if names := Lagging(v); len(names) > 0 {
			what += "; waiting for " + strings.Join(names, ", ")
		}
		return what
	}
	switch {
	case t.GetNext() != nil:
		return wait("every node learns to trust the new CA")
	case t.GetPrevious() != nil:
		return wait("every node gets a certificate of the new CA")
	}
	return "stable"
}

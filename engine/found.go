package engine

import (
	"orch/engine/api"
	"orch/engine/ca"
	"orch/engine/folder"
	"orch/engine/seal"
)

// Found makes a folder that of the first engine of a new cluster: with a CA,
// a data key and a certificate. It does nothing to a folder that is of a
// cluster already.
func Found(f *folder.Folder, cluster, node, address string) error {
	if f.Membership() != nil {
		return nil
	}
	authority, err := ca.New()
	if err != nil {
		return err
	}
	key, err := authority.Key()
	if err != nil {
		return err
	}
	data := seal.NewKey()
	// Before the membership: a folder with one has the keys as well.
	err = f.UpdateKeys(func(k *folder.Keys) { k.Data, k.Authority, k.Certificate = data[:], key, authority.Certificate() })
	if err != nil {
		return err
	}
	keys, err := f.Keys()
	if err != nil {
		return err
	}
	cert, err := authority.Sign(ca.Subject{Role: ca.Engine, ID: f.ID}, keys.Node.Public())
	if err != nil {
		return err
	}
	m := &api.Membership{
		ClusterId: folder.NewID(), ClusterName: cluster, NodeId: f.ID, Name: node, Role: string(ca.Engine),
		Certificate: cert, Roots: [][]byte{authority.Certificate()},
	}
	if address != "" {
		m.Engines = []*api.Peer{{NodeId: f.ID, Name: node, Address: address}}
	}
	return f.SetMembership(m)
}

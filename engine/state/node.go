package state

import (
	"time"

	"google.golang.org/protobuf/proto"

	"orch/engine/api"
)

// rememberRemoved is for how long the cluster remembers a removed node: longer
// than any certificate that it might still hold is valid.
const rememberRemoved = 10 * 24 * time.Hour

// putNode makes a node, or replaces its row. A node stays the holder of its
// first key: an empty key_digest keeps the one that is there.
func (w *writer) putNode(n *api.Node) error {
	if n.GetId() == "" || n.Name == "" {
		return refuse(Invalid, "a node needs an id and a name")
	}
	for _, gone := range w.Cluster().GetRemoved() {
		if gone.Id == n.Id {
			return refuse(InUse, "node %s was removed from the cluster: it joins again with a new id", n.Id)
		}
	}
	for _, other := range w.Nodes() {
		if other.Name == n.Name && other.Id != n.Id {
			return refuse(InUse, "node name %q is taken by node %s", n.Name, other.Id)
		}
	}
	if old := w.Node(n.Id); old != nil {
		if n.KeyDigest != "" && old.KeyDigest != "" && n.KeyDigest != old.KeyDigest {
			return refuse(InUse, "node %s has another key: remove node %q first, or join with a new id", n.Id, old.Name)
		}
		n = proto.CloneOf(n)
		if n.KeyDigest == "" {
			n.KeyDigest = old.KeyDigest
		}
		if n.RoleSince = old.RoleSince; n.Role != old.Role {
			n.RoleSince = w.now
		}
	}
	n = proto.CloneOf(n)
	w.join(n)
	w.put(nodeTable, n)
	return nil
}

// join gives a node that can be part of the mesh its place there.
func (w *writer) join(n *api.Node) {
	if n.MeshAddress == "" {
		n.MeshAddress = w.Node(n.Id).GetMeshAddress()
	}
	if n.MeshAddress == "" && n.Facts.GetPlane().GetMeshKey() != "" {
		n.MeshAddress = w.meshAddress(n.Id)
	}
}

func (w *writer) removeNode(r *api.RemoveNode) error {
	n := w.Node(r.GetId())
	if n == nil {
		return refuse(NotFound, "no node %q", r.GetId())
	}
	w.delete(nodeTable, n)
	old := w.Cluster()
	if old == nil {
		return nil
	}
	c := proto.CloneOf(old)
	c.Removed = nil
	for _, gone := range old.Removed {
		if gone.Id != n.Id && w.now.AsTime().Sub(gone.At.AsTime()) <= rememberRemoved {
			c.Removed = append(c.Removed, gone)
		}
	}
	c.Removed = append(c.Removed, &api.RemovedNode{Id: n.Id, At: w.now})
	w.put(clusterTable, c)
	return nil
}

func (w *writer) setNode(s *api.SetNode) error {
	old := w.Node(s.GetId())
	if old == nil {
		return refuse(NotFound, "no node %q", s.GetId())
	}
	switch s.Availability {
	case "", "active", "pause", "drain":
	default:
		return refuse(Invalid, "a node can be active, pause or drain, not %q", s.Availability)
	}
	switch s.Role {
	case "", "engine", "agent":
	default:
		return refuse(Invalid, "a node's role is engine or agent, not %q", s.Role)
	}
	n := proto.CloneOf(old)
	if s.Status != "" && s.Status != n.Status {
		n.Status, n.StatusReason, n.StatusSince = s.Status, s.StatusReason, w.now
	}
	if s.Availability != "" {
		n.Availability = s.Availability
	}
	if s.Role != "" && s.Role != n.Role {
		n.Role, n.RoleSince = s.Role, w.now
	}
	for k, v := range s.Labels {
		if n.Labels == nil {
			n.Labels = map[string]string{}
		}
		if n.Labels[k] = v; v == "" {
			delete(n.Labels, k)
		}
	}
	if s.Facts != nil {
		n.Facts = s.Facts
		w.join(n)
	}
	if s.EngineAddress != "" {
		n.EngineAddress = s.EngineAddress
	}
	if s.HostKey != "" {
		n.HostKey = s.HostKey
	}
	if !proto.Equal(n, old) { // a change of nothing wakes nobody
		w.put(nodeTable, n)
	}
	return nil
}

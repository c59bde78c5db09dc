package state

import (
	"google.golang.org/protobuf/proto"

	"orch/engine/api"
)

// putCluster makes the cluster, once; afterwards setCluster changes it.
func (w *writer) putCluster(c *api.Cluster) error {
	if c.GetId() == "" {
		return refuse(Invalid, "a cluster needs an id")
	}
	if old := w.Cluster(); old != nil {
		return refuse(Stale, "this is cluster %q already", old.Id)
	}
	w.put(clusterTable, c)
	return nil
}

// setCluster changes the CA or the lock by compare and set, and raises the
// command set, which never goes back.
func (w *writer) setCluster(s *api.SetCluster) error {
	old := w.Cluster()
	guarded := s.GetTrust() != nil || len(s.GetUnlockKey()) > 0 || s.GetClearUnlockKey()
	switch {
	case old == nil:
		return refuse(NotFound, "there is no cluster yet")
	case !guarded && s.GetVersion() == 0:
		return refuse(Invalid, "there is nothing to change")
	case s.GetTrust() != nil && len(s.Trust.GetCurrent().GetCertificate()) == 0:
		return refuse(Invalid, "a cluster's trust needs a current root")
	case len(s.GetUnlockKey()) > 0 && s.ClearUnlockKey:
		return refuse(Invalid, "an unlock key is either set or cleared")
	case guarded && s.Generation != old.Generation:
		return refuse(Stale, "the cluster's trust or lock has changed meanwhile (generation %d, not %d): look again", old.Generation, s.Generation)
	}
	c := proto.CloneOf(old)
	if s.Trust != nil {
		c.Trust = s.Trust
	}
	if len(s.UnlockKey) > 0 || s.ClearUnlockKey {
		c.UnlockKey = s.UnlockKey
	}
	if guarded {
		c.Generation++
	}
	c.Version = max(c.Version, s.Version)
	if !proto.Equal(c, old) {
		w.put(clusterTable, c)
	}
	return nil
}

func (w *writer) putToken(t *api.JoinToken) error {
	switch {
	case t.GetId() == "" || len(t.Hash) == 0 || t.ExpiresAt == nil:
		return refuse(Invalid, "a join token needs an id, a hash and an end")
	case t.Role != "engine" && t.Role != "agent":
		return refuse(Invalid, "a join token is for role engine or agent, not %q", t.Role)
	case w.Token(t.Id) != nil:
		return refuse(InUse, "there is a join token %q already", t.Id)
	}
	t = proto.CloneOf(t)
	t.CreatedAt = w.now
	w.put(tokenTable, t)
	return nil
}

func (w *writer) removeTokens(r *api.RemoveTokens) error {
	switch {
	case r.GetRole() == "" && r.GetId() == "" && !r.GetExpired():
		return refuse(Invalid, "which join tokens: of a role, one by its id, or those that have expired")
	case r.Id != "" && w.Token(r.Id) == nil:
		return refuse(NotFound, "no join token %q", r.Id)
	}
	for _, t := range w.Tokens() {
		if t.Id == r.Id || t.Role == r.Role || r.Expired && !t.ExpiresAt.AsTime().After(w.now.AsTime()) {
			w.delete(tokenTable, t)
		}
	}
	return nil
}

// putOperator makes an operator, or gives one another role or key.
func (w *writer) putOperator(o *api.Operator) error {
	switch {
	case o.GetName() == "" || o.KeyDigest == "":
		return refuse(Invalid, "an operator needs a name and a key")
	case o.Role != "admin" && o.Role != "deploy" && o.Role != "view":
		return refuse(Invalid, "an operator's role is admin, deploy or view, not %q", o.Role)
	}
	o = proto.CloneOf(o)
	o.CreatedAt = w.now
	if old := w.Operator(o.Name); old != nil {
		o.CreatedAt = old.CreatedAt
	}
	w.put(operatorTable, o)
	return nil
}

// removeOperator may take the last admin: whoever may open an engine's own
// socket is one always.
func (w *writer) removeOperator(r *api.RemoveOperator) error {
	o := w.Operator(r.GetName())
	if o == nil {
		return refuse(NotFound, "no operator %q", r.GetName())
	}
	w.delete(operatorTable, o)
	return nil
}

package ca_test

import (
	"testing"

	"orch/engine/ca"
)

func TestPeersKnowEachOther(t *testing.T) {
	a, other := authority(t), authority(t)
	one, two := issue(t, a, ca.Agent, "n1"), issue(t, a, ca.Engine, "n2")
	for name, c := range map[string]struct {
		server, client *ca.Wallet
		meant          string
		peer           string // "": it fails, or isn't let in
	}{
		"an agent to an engine": {two, one, "n2", "n1"},
		"an engine to an agent": {one, two, "n1", "n2"},
		"another than is meant": {two, one, "n3", ""},
		"of another cluster":    {two, issue(t, other, ca.Agent, "n1"), "n2", ""},
		"to another cluster":    {issue(t, other, ca.Agent, "n2"), one, "n2", ""},
		"an operator":           {two, issue(t, a, ca.Operator, "n1"), "n2", ""},
	} {
		state, err := handshake(t, c.server.PeerServer(), c.client.PeerClient(c.meant))
		if got := map[bool]string{true: c.server.Peer(&state)}[err == nil]; got != c.peer {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

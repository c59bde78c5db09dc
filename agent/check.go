package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"orch/agent/mesh"
	"orch/engine/api"
)

const (
	// checkWithin a peer answers.
	checkWithin = 2 * time.Second
	// clockWithin two clocks may differ: certificates and deadlines go by them.
	clockWithin = 2 * time.Second
)

// check looks at all that leads from here to the other nodes, and says of what
// doesn't work what can be done.
func (a *Agent) check(ctx context.Context, q *api.CheckQuery) []*api.Finding {
	var mu sync.Mutex
	var all []*api.Finding
	found := func(peer, what string, err error, good string) {
		f := &api.Finding{Node: a.cfg.Name, Peer: peer, What: what, Ok: err == nil, Text: good}
		if err != nil {
			f.Text = err.Error()
		}
		mu.Lock()
		defer mu.Unlock()
		all = append(all, f)
	}
	ahead := time.Since(q.Now.AsTime())
	var apart error
	if ahead.Abs() > clockWithin {
		apart = fmt.Errorf("its clock is %s off the leader's: run a time service (chrony, systemd-timesyncd) on both", ahead.Round(time.Millisecond))
	}
	found("", "clock", apart, "within "+clockWithin.String()+" of the leader's")
	var work sync.WaitGroup
	work.Go(func() { a.inspect(ctx, found) })
	if a.networks == nil {
		found("", "networks", fmt.Errorf("it takes no part in networks across hosts: %w", a.none), "")
	} else {
		for what, text := range a.networks.errors() {
			found("", "networks", fmt.Errorf("%s: %s", what, text), "")
		}
	}
	for _, peer := range a.plane.Nodes() {
		if peer.Id == a.cfg.NodeID {
			if peer.Relays && peer.Behind != "" {
				found("", "nat", fmt.Errorf("it is labelled relay, but behind NAT itself (%s): label one with an address of its own", peer.Behind), "")
			}
			continue
		}
		if a.networks != nil && a.networks.mesh != nil && peer.MeshKey != "" {
			work.Go(func() { a.tryMesh(ctx, peer, found) })
		}
	}
	work.Wait()
	slices.SortFunc(all, func(a, b *api.Finding) int { return compare(a.Peer, b.Peer, a.What, b.What) })
	return all
}

func compare(pairs ...string) int {
	for i := 0; i < len(pairs); i += 2 {
		switch {
		case pairs[i] < pairs[i+1]:
			return -1
		case pairs[i] > pairs[i+1]:
			return 1
		}
	}
	return 0
}

// inspect asks the carrier how it is, and whether it reaches the other nodes'.
func (a *Agent) inspect(ctx context.Context, found func(peer, what string, err error, good string)) {
	ctx, cancel := context.WithTimeout(ctx, checkWithin)
	defer cancel()
	var ids []string
	for _, peer := range a.plane.Nodes() {
		if peer.Id != a.cfg.NodeID && peer.Relay != "" {
			ids = append(ids, peer.Id)
		}
	}
	seen, err := a.carrier.Inspect(ctx, ids)
	if err != nil {
		found("", "ports", fmt.Errorf("the process of its published ports doesn't answer: %w", err), "")
		return
	}
	closed := a.carrier.ClosedPorts()
	for _, p := range closed {
		found("", "ports", fmt.Errorf("%s is closed: %s: stop what has the port there, or publish another", api.PortText(p), p.Why), "")
	}
	if len(closed) == 0 {
		found("", "ports", nil, "it listens on all published ports")
	}
	if a.networks != nil {
		var err error
		if seen.NamesError != "" {
			err = errors.New(seen.NamesError)
		}
		found("", "names", err, fmt.Sprintf("it answers on %d networks", seen.Networks))
	}
	if seen.ForwardError != "" {
		found("", "nat", errors.New(seen.ForwardError), "")
	}
	for _, peer := range a.plane.Nodes() {
		var err error
		way := a.plane.Way(peer.Id)
		switch why := seen.Unreached[peer.Id]; {
		case peer.Id == a.cfg.NodeID:
			continue
		case peer.Relay == "" || a.cfg.Peers == nil:
			err = errors.New("it is not known where: the node says no address of its own")
		case way.Blocked != "":
			err = errors.New(way.Blocked)
		case why != "" && way.Relay != peer.Relay:
			err = fmt.Errorf("%s: it is behind NAT (%s) and reached through the mesh, at %s", why, peer.Behind, way.Relay)
		case why != "":
			err = fmt.Errorf("%s: let TCP to %s through the firewalls between", why, peer.Relay)
		}
		for _, n := range way.Plain {
			found(peer.Name, "network", fmt.Errorf("%s isn't encrypted, and doesn't lead through the NAT between: leave out encrypted = False", n), "")
		}
		found(peer.Name, "relay", err, "its published ports' tasks are reached at "+way.Relay)
	}
}

// tryMesh asks another node through the mesh, with a small and a full packet.
func (a *Agent) tryMesh(ctx context.Context, peer *api.EndpointNode, found func(peer, what string, err error, good string)) {
	ctx, cancel := context.WithTimeout(ctx, checkWithin)
	defer cancel()
	if !a.networks.overlay.Meshes(peer.MeshAddress) {
		if why := a.plane.Way(peer.Id).Blocked; why != "" {
			found(peer.Name, "mesh", errors.New(why), "")
		} else {
			found(peer.Name, "mesh", nil, "not needed: no encrypted network has tasks on both")
		}
		return
	}
	took, err := echo(ctx, peer.MeshAddress, 0)
	if err != nil {
		found(peer.Name, "mesh", fmt.Errorf("no answer through the mesh from %s: %s (%s)", peer.MeshAddress, a.plane.Way(peer.Id).MeshHint, a.handshake(peer.MeshKey)), "")
		return
	}
	found(peer.Name, "mesh", nil, fmt.Sprintf("it answers in %s, %s", took.Round(10*time.Microsecond), a.handshake(peer.MeshKey)))
	_, err = echo(ctx, peer.MeshAddress, mesh.MTU)
	if err != nil {
		err = fmt.Errorf("small packets come through, those of %d bytes don't: a link between has an MTU under 1500; set it on the hosts' links before networks are made", mesh.MTU)
	}
	found(peer.Name, "packets", err, fmt.Sprintf("%d bytes come through in one", mesh.MTU))
}

// handshake says when a peer was last agreed with on keys.
func (a *Agent) handshake(key string) string {
	all, err := a.networks.mesh.Peers()
	if err != nil {
		return err.Error()
	}
	for _, p := range all {
		switch {
		case p.Key != key:
		case p.Handshake.IsZero():
			return "there was no handshake yet"
		default:
			return "the last handshake was " + time.Since(p.Handshake).Round(time.Second).String() + " ago"
		}
	}
	return "the mesh doesn't know it"
}

// echo sends a packet of so many bytes, IP header included, and waits for its
// echo. No router may cut it up.
func echo(ctx context.Context, address string, size int) (time.Duration, error) {
	c, err := net.Dial("ip4:icmp", address)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	return ping(ctx, c.(*net.IPConn), size)
}

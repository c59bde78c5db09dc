package agent

import (
	"context"
	"net"
	"slices"
	"sync"
	"time"
)

// lookWithin this host's own name is looked up.
const lookWithin = time.Second

// observed takes the address that an engine sees this host by. Where that is
// neither an address of this host nor the one it says that it has, there is a NAT
// between: others can't begin to speak to it.
func (a *Agent) observed(address string) {
	if a.cfg.Peers == nil {
		return // it is alone
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		a.cfg.Logger.Warn("it isn't known whether this host is behind NAT", "error", err)
		return
	}
	behind := nat(address, nil, own)
	if behind != "" { // only then the session waits for a name
		ctx, cancel := context.WithTimeout(context.Background(), lookWithin)
		defer cancel()
		said, _ := net.DefaultResolver.LookupHost(ctx, a.cfg.Address)
		behind = nat(address, said, own)
	}
	a.mu.Lock()
	changed := a.behind != behind
	a.behind = behind
	a.mu.Unlock()
	if !changed {
		return
	}
	if behind != "" {
		a.cfg.Logger.Info("this host is behind NAT: other nodes see another address than its own", "address", behind, "own", a.cfg.Address)
	}
	a.tell()
}

const (
	// askPeersEvery often a host behind NAT asks its peers in the mesh.
	askPeersEvery = 2 * time.Second
	// peerWithin one that is there answers.
	peerWithin = time.Second
	// mostSilent in a row is how often one may not answer.
	mostSilent = 2
)

// keepWays looks, on a host behind NAT, whether the mesh leads to the other nodes:
// only this side can begin to speak, and WireGuard alone notices after up to two
// minutes that the other one, or a relay between, has begun anew.
func (a *Agent) keepWays(ctx context.Context) {
	if a.networks == nil || a.networks.mesh == nil {
		return
	}
	tick := time.NewTicker(askPeersEvery)
	defer tick.Stop()
	silent := map[string]int{} // by key, how often in a row
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		keys := a.unanswering(ctx)
		for key := range silent {
			if !slices.Contains(keys, key) {
				delete(silent, key)
			}
		}
		for _, key := range keys {
			if silent[key]++; silent[key]%mostSilent > 0 {
				continue
			}
			if err := a.networks.mesh.Again(key); err != nil {
				a.cfg.Logger.Warn("cannot speak to another node through the mesh anew", "error", err)
			}
		}
	}
}

// unanswering are the keys of the nodes behind another NAT, or none, that don't
// answer through the mesh though the engine hears of them.
func (a *Agent) unanswering(ctx context.Context) (keys []string) {
	a.mu.Lock()
	behind := a.behind
	a.mu.Unlock()
	if behind == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, peerWithin)
	defer cancel()
	var mu sync.Mutex
	var work sync.WaitGroup
	for _, n := range a.plane.Nodes() {
		if n.Id == a.cfg.NodeID || n.Suspect || n.Behind == behind || !a.networks.overlay.Meshes(n.MeshAddress) {
			continue
		}
		work.Go(func() {
			if _, err := echo(ctx, n.MeshAddress, 0); err != nil {
				mu.Lock()
				defer mu.Unlock()
				keys = append(keys, n.MeshKey)
			}
		})
	}
	work.Wait()
	return keys
}

// nat is the address of the NAT that a host is behind, by the address that it is
// seen by, those that it says it has, and its own; "" if there is none.
func nat(seen string, said []string, own []net.Addr) string {
	ip := net.ParseIP(seen)
	if ip == nil || ip.IsLoopback() {
		return ""
	}
	is := func(text string) bool { return ip.Equal(net.ParseIP(text)) }
	has := func(a net.Addr) bool {
		n, ok := a.(*net.IPNet)
		return ok && n.IP.Equal(ip)
	}
	if slices.ContainsFunc(said, is) || slices.ContainsFunc(own, has) {
		return ""
	}
	return ip.String()
}

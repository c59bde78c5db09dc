package agent

import (
	"context"
	"net"
	"slices"
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
	ctx, cancel := context.WithTimeout(context.Background(), lookWithin)
	defer cancel()
	said, _ := net.DefaultResolver.LookupHost(ctx, a.cfg.Address)
	own, err := net.InterfaceAddrs()
	if err != nil {
		a.cfg.Logger.Warn("it isn't known whether this host is behind NAT", "error", err)
		return
	}
	behind := nat(address, said, own)
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

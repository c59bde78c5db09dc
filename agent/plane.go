package agent

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"

	"orch/agent/docker"
	"orch/agent/mesh"
	"orch/agent/network"
	"orch/agent/overlay"
	"orch/agent/virtual"
	"orch/engine/api"
)

// plane is what makes networks reach across hosts: it takes root.
type plane struct {
	mesh    *mesh.Mesh
	overlay *overlay.Overlay
	virtual *virtual.Addresses
}

// openPlane fails with the reason why this host can't take part.
func openPlane(cfg Config) (*plane, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("orch doesn't run as root there")
	}
	if !docker.Local() {
		return nil, errors.New("its Docker is on another host")
	}
	p := &plane{virtual: &virtual.Addresses{Logger: cfg.Logger}}
	if cfg.Peers == nil {
		return p, nil // there are no other hosts
	}
	m, err := mesh.Open(cfg.Dir, cfg.Cluster+" "+cfg.NodeID, cfg.Peers.Port+1)
	if err != nil {
		return nil, err
	}
	p.mesh, p.overlay = m, &overlay.Overlay{Mesh: m, Logger: cfg.Logger}
	return p, nil
}

// into gives a node's plane its parts.
func (p *plane) into(n *network.Plane) {
	n.Virtual = p.virtual
	if p.overlay != nil {
		n.Overlay = p.overlay
	}
}

func (p *plane) run(ctx context.Context, work *sync.WaitGroup) {
	if p.overlay != nil {
		work.Go(func() { p.overlay.Run(ctx) })
	}
}

// Bridge and Attach implement docker.Plane.
func (p *plane) Bridge(vni uint32) string { return overlay.Bridge(vni) }

func (p *plane) Attach(vni uint32) {
	if p.overlay != nil {
		p.overlay.Attach(vni)
	}
}

// renew has the mesh's key replaced, if it is old; the facts tell of it.
func (p *plane) renew(log *slog.Logger) {
	if p == nil || p.mesh == nil {
		return
	}
	switch changed, err := p.mesh.Renew(time.Now()); {
	case err != nil:
		log.Warn("the mesh goes on with its old key", "error", err)
	case changed:
		log.Info("the mesh gets a new key")
	}
}

// errors says what doesn't work, by network or "mesh".
func (p *plane) errors() map[string]string {
	if p.overlay == nil {
		return nil
	}
	return p.overlay.Errors()
}

// remove takes away all that was made on this host.
func (p *plane) remove() error {
	if p.overlay == nil {
		return nil
	}
	return errors.Join(p.overlay.Remove(), p.mesh.Remove())
}

// facts is what other nodes and the engine need to know of it.
func (p *plane) facts(address string, own []string, log *slog.Logger) *api.PlaneFacts {
	f := &api.PlaneFacts{}
	if p.mesh != nil {
		f.MeshKey, f.MeshPort, f.MeshKind = p.mesh.Key(), uint32(p.mesh.Port()), p.mesh.Kind()
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		log.Warn("cannot list this host's routes", "error", err)
	}
	for _, r := range routes {
		if r.Dst == nil || r.Dst.IP.IsUnspecified() || p.mesh != nil && linkName(r.LinkIndex) == p.mesh.Device() {
			continue
		}
		if text := r.Dst.String(); !slices.Contains(own, text) {
			f.Routes = append(f.Routes, text)
		}
	}
	slices.Sort(f.Routes)
	f.Routes = slices.Compact(f.Routes)
	f.Mtu = mtu(address)
	return f
}

func linkName(index int) string {
	l, err := netlink.LinkByIndex(index)
	if err != nil {
		return ""
	}
	return l.Attrs().Name
}

// mtu is that of the link with an address of this host; 0: there is none.
func mtu(address string) int32 {
	ip := net.ParseIP(address)
	links, err := net.Interfaces()
	if err != nil || ip == nil {
		return 0
	}
	for _, l := range links {
		addresses, _ := l.Addrs()
		for _, a := range addresses {
			if n, ok := a.(*net.IPNet); ok && n.IP.Equal(ip) && l.Flags&net.FlagLoopback == 0 {
				return int32(l.MTU)
			}
		}
	}
	return 0
}

// Package overlay joins a network's bridges on different hosts: each has a
// vxlan device that leads to the others, over the mesh where the network is
// encrypted. Nothing is flooded and nothing learnt: who is where comes from the
// engine, and the kernel answers ARP for those elsewhere. Devices are made where
// there is both a bridge here and a task elsewhere, and put right whenever
// links change, as they do when a runtime restarts.
package overlay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"google.golang.org/protobuf/proto"

	"orch/engine/api"
)

// UDP ports of vxlan, on every node: not the standard one, which others use.
const (
	plainPort     = 4750
	encryptedPort = 4751 // only let in from the mesh
)

// settle is how long a burst of changes of links is let settle, and retry the
// pause after a failure.
const (
	settle = 100 * time.Millisecond
	retry  = 2 * time.Second
)

// Bridge is the name of a network's bridge on every host.
func Bridge(vni uint32) string { return fmt.Sprintf("orb%06x", vni) }

func device(vni uint32) string { return fmt.Sprintf("orv%06x", vni) }

// Mesh is what encrypted networks travel through.
type Mesh interface {
	Device() string
	// Set brings it up, for a node with this address and the key that others know.
	Set(address, key string, peers []*api.MeshPeer) error
}

// Overlay keeps a node's devices. It is safe for concurrent use.
type Overlay struct {
	Mesh   Mesh
	Logger *slog.Logger

	mu     sync.Mutex
	want   *api.Overlay
	meshed *api.Overlay       // what the mesh was set to
	made   map[uint32]*joined // by VNI
	said   map[string]string  // errors that were told, by what
	walled bool
	again  *time.Timer // after a failure
}

// Overlay replaces what is wanted, and puts what is otherwise than before into
// effect: most changes of the cluster concern none of a node's networks.
func (o *Overlay) Overlay(want *api.Overlay) {
	o.mu.Lock()
	defer o.mu.Unlock()
	before := map[uint32]*api.OverlayNetwork{}
	if o.want.GetMeshAddress() == want.MeshAddress && o.want.GetHostAddress() == want.HostAddress {
		for _, n := range o.want.GetNetworks() {
			before[n.Vni] = n
		}
	}
	o.want = want
	o.sync(func(n *api.OverlayNetwork) bool { return !proto.Equal(before[n.Vni], n) })
}

// Attach makes sure that a network whose bridge was just made reaches other
// hosts, before a task begins to use it.
func (o *Overlay) Attach(vni uint32) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.want == nil {
		return
	}
	for _, n := range o.want.Networks {
		if n.Vni == vni {
			o.report(n.Id, o.join(n))
		}
	}
}

// Run puts right what others change, until ctx ends. Devices stay.
func (o *Overlay) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := o.watch(ctx); err != nil && ctx.Err() == nil {
			o.Logger.Warn("cannot watch links", "error", err)
			pause(ctx, retry)
		}
	}
	return ctx.Err()
}

func (o *Overlay) watch(ctx context.Context) error {
	links, done := make(chan netlink.LinkUpdate, 64), make(chan struct{})
	defer close(done)
	var failed error
	err := netlink.LinkSubscribeWithOptions(links, done, netlink.LinkSubscribeOptions{ErrorCallback: func(err error) { failed = err }})
	if err != nil {
		return err
	}
	o.resync()
	for {
		select {
		case <-ctx.Done():
			go func() { // until the subscription has seen that it is over
				for range links {
				}
			}()
			return ctx.Err()
		case l, ok := <-links:
			if !ok {
				return cmpError(failed, "the kernel ended the subscription")
			}
			if !o.concerns(l.Attrs().Name) {
				continue
			}
			pause(ctx, settle)
			for empty := false; !empty; {
				select {
				case <-links:
				default:
					empty = true
				}
			}
			o.resync()
		}
	}
}

func cmpError(err error, text string) error {
	if err != nil {
		return err
	}
	return errors.New(text)
}

func (o *Overlay) concerns(link string) bool {
	return strings.HasPrefix(link, "orb") || strings.HasPrefix(link, "orv") || link == o.Mesh.Device()
}

// resync puts all into effect again, the mesh as well.
func (o *Overlay) resync() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.again != nil {
		o.again.Stop()
		o.again = nil
	}
	o.meshed = nil
	o.sync(func(*api.OverlayNetwork) bool { return true })
	o.sweep()
}

// sweep takes away devices of networks that went while nobody looked, and their
// bridges with them; o.mu is held.
func (o *Overlay) sweep() {
	if o.want == nil {
		return
	}
	wanted := map[string]bool{}
	for _, n := range o.want.Networks {
		wanted[device(n.Vni)] = true
	}
	links, err := netlink.LinkList()
	if err != nil {
		return // the next change of links brings the next try
	}
	for _, l := range links {
		if v, ok := l.(*netlink.Vxlan); ok && v.MasterIndex == 0 && v.Name == device(uint32(v.VxlanId)) && !wanted[v.Name] {
			_ = netlink.LinkDel(l)
		}
	}
}

// sync makes the mesh, and the networks that differ, as they are wanted; o.mu
// is held.
func (o *Overlay) sync(differs func(*api.OverlayNetwork) bool) {
	if o.want == nil {
		return
	}
	if o.made == nil {
		o.made = map[uint32]*joined{}
	}
	ok := o.report("mesh", o.mesh())
	wanted, told := map[uint32]bool{}, map[string]bool{"mesh": true}
	for _, n := range o.want.Networks {
		wanted[n.Vni], told[n.Id] = true, true
		if differs(n) {
			ok = o.report(n.Id, o.join(n)) && ok
		}
	}
	for vni := range o.made {
		if !wanted[vni] {
			told[device(vni)] = true
			ok = o.report(device(vni), remove(device(vni))) && ok
			delete(o.made, vni)
		}
	}
	maps.DeleteFunc(o.said, func(what, _ string) bool { return !told[what] })
	if !ok && o.again == nil {
		o.again = time.AfterFunc(retry, o.resync)
	}
}

// report tells of an error once; it says whether there is none.
func (o *Overlay) report(what string, err error) (ok bool) {
	if o.said == nil {
		o.said = map[string]string{}
	}
	if err == nil {
		delete(o.said, what)
		return true
	}
	if text := err.Error(); o.said[what] != text {
		o.said[what] = text
		o.Logger.Error("a network doesn't reach other hosts; trying again", "network", what, "error", err)
	}
	return false
}

// Errors says what doesn't work, by network or "mesh".
func (o *Overlay) Errors() map[string]string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return maps.Clone(o.said)
}

// Meshes says that the mesh is up, and leads to this address.
func (o *Overlay) Meshes(address string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.ContainsFunc(o.meshed.GetPeers(), func(p *api.MeshPeer) bool { return p.Address == address })
}

// mesh sets up the mesh once it has peers.
func (o *Overlay) mesh() error {
	want := &api.Overlay{MeshAddress: o.want.MeshAddress, MeshKey: o.want.MeshKey, Peers: o.want.Peers}
	if want.MeshAddress == "" || len(want.Peers) == 0 && o.meshed == nil || o.meshed != nil && proto.Equal(want, o.meshed) {
		return nil
	}
	if err := o.Mesh.Set(want.MeshAddress, want.MeshKey, want.Peers); err != nil {
		return err
	}
	o.meshed = want
	return nil
}

// join makes a network's device if both ends of it are there.
func (o *Overlay) join(n *api.OverlayNetwork) error {
	bridge, err := netlink.LinkByName(Bridge(n.Vni))
	local := o.want.HostAddress
	if n.Encrypted {
		local = o.want.MeshAddress
	}
	switch {
	case errors.As(err, &netlink.LinkNotFoundError{}), err == nil && (len(n.Neighbours) == 0 && o.made[n.Vni] == nil):
		delete(o.made, n.Vni)
		return remove(device(n.Vni))
	case err != nil:
		return err
	case local == "":
		return nil // not known yet
	}
	source, err := resolve(local)
	if err != nil {
		return err
	}
	if !o.walled {
		if err := wall(o.Mesh.Device()); err != nil {
			return fmt.Errorf("cannot keep strangers out of encrypted networks: %w", err)
		}
		o.walled = true
	}
	vxlan, err := ensure(n, bridge, source)
	if err != nil {
		if _, gone := netlink.LinkByName(Bridge(n.Vni)); errors.As(gone, &netlink.LinkNotFoundError{}) {
			delete(o.made, n.Vni) // it went meanwhile, with the last of its tasks
			return remove(device(n.Vni))
		}
		return fmt.Errorf("cannot make a vxlan device: %w", err)
	}
	j := o.made[n.Vni]
	if j == nil || j.bridge != bridge.Attrs().Index || j.vxlan != vxlan.Attrs().Index {
		if j, err = seen(bridge, vxlan); err != nil {
			return err
		}
		if o.made == nil {
			o.made = map[uint32]*joined{}
		}
		o.made[n.Vni] = j
	}
	return j.enter(n.Neighbours)
}

// Remove takes away all devices that were made for networks.
func (o *Overlay) Remove() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.again != nil {
		o.again.Stop()
	}
	o.want, o.walled = nil, false
	var all []error
	for vni := range o.made {
		all = append(all, remove(device(vni)))
	}
	o.made = nil
	return errors.Join(append(all, unwall(o.Mesh.Device()))...)
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

package dispatch

import (
	"math"
	"net"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	"orch/engine/api"
	"orch/engine/state"
)

// The endpoint table says which tasks take part in their services' traffic.
// Every agent that follows it gets it whole with a session's first message,
// then what changed, and says which epoch is in effect at its node.

// ring remembers what changed of the table, and when: so a session need only
// remember how far it has sent. Its mutex is the dispatcher's.
type ring struct {
	from, until uint64 // it is complete for epochs in (from, until]
	changes     []tableChange
}

// tableChange is a task, a service or a network whose part in the table
// changed.
type tableChange struct {
	epoch                  uint64
	task, service, network string // one of them
}

// mostChanges are kept; a session that is further behind is sent all.
const mostChanges = 4096

// reset forgets what was before index.
func (r *ring) reset(index uint64) { *r = ring{from: index, until: index} }

func (r *ring) add(c tableChange) {
	if len(r.changes) >= mostChanges {
		half := len(r.changes) / 2
		r.from = r.changes[half-1].epoch
		r.changes = slices.Clone(r.changes[half:])
		for len(r.changes) > 0 && r.changes[0].epoch <= r.from {
			r.changes = r.changes[1:]
		}
	}
	r.changes = append(r.changes, c)
}

// note adds what an entry changed of the table; it says whether anything.
func (r *ring) note(c state.Change) (any bool) {
	for _, d := range c.Deltas {
		change := tableChange{epoch: c.Index}
		switch row := firstRow(d).(type) {
		case *api.Task:
			before, _ := d.Before.(*api.Task)
			after, _ := d.After.(*api.Task)
			if before.GetEpoch() == after.GetEpoch() || before.GetEpoch()+after.GetEpoch() == 0 {
				continue
			}
			change.task = row.Id
		case *api.Service:
			before, _ := d.Before.(*api.Service)
			after, _ := d.After.(*api.Service)
			if before != nil && after != nil && before.Spec == after.Spec && len(before.Addresses) == len(after.Addresses) {
				continue
			}
			change.service = row.Id
		case *api.Rollout:
			before, _ := d.Before.(*api.Rollout)
			after, _ := d.After.(*api.Rollout)
			was, wasSteered := state.Traffic(before)
			if is, steered := state.Traffic(after); is == was && steered == wasSteered {
				continue
			}
			change.service = row.ServiceId
		case *api.Network:
			if d.Before != nil && d.After != nil {
				continue // another address of it was given
			}
			change.network = row.Id
		default:
			continue
		}
		r.add(change)
		any = true
	}
	r.until = max(r.until, c.Index)
	return any
}

func firstRow(d state.Delta) any {
	if d.After != nil {
		return d.After
	}
	return d.Before
}

// since is what changed after an epoch; whole: more than is remembered.
func (r *ring) since(epoch uint64) (changes []tableChange, whole bool) {
	if epoch < r.from || epoch == 0 {
		return nil, true
	}
	i, _ := slices.BinarySearchFunc(r.changes, epoch+1, func(c tableChange, e uint64) int {
		switch {
		case c.epoch < e:
			return -1
		case c.epoch > e:
			return 1
		}
		return 0
	})
	return slices.Clone(r.changes[i:]), false
}

// table makes the message that brings an agent from what changed, or from
// nothing, to v.
func table(v state.View, until uint64, changes []tableChange, whole bool) *api.Endpoints {
	m := &api.Endpoints{Full: whole, Epoch: until}
	service := func(id string) {
		svc := v.Service(id)
		if svc == nil {
			m.RemovedServices = append(m.RemovedServices, id)
			return
		}
		s := &api.EndpointService{Id: id, Ports: svc.Spec.GetPorts(), Addresses: byNetwork(svc.Stack, svc.Addresses)}
		s.Process = svc.Spec.GetTask().GetRuntime() == "process"
		if r := v.Rollout(svc.RolloutId); r != nil {
			if s.NewPercent, s.Steered = state.Traffic(r); s.Steered {
				s.NewVersion = r.ToVersion
			}
		}
		m.Services = append(m.Services, s)
	}
	network := func(id string) {
		n := v.Network(id)
		if n == nil {
			m.RemovedNetworks = append(m.RemovedNetworks, id)
			return
		}
		m.Networks = append(m.Networks, &api.EndpointNetwork{Id: id, Vni: n.Vni, Subnet: n.Subnet, Encrypted: n.Spec.GetEncrypted(), Internal: n.Spec.GetInternal(), Mtu: n.Mtu})
	}
	endpoint := func(t *api.Task, id string) {
		if e := endpointOf(v, t); e != nil {
			m.Endpoints = append(m.Endpoints, e)
		} else {
			m.RemovedEndpoints = append(m.RemovedEndpoints, id)
		}
	}
	if whole {
		for _, n := range v.Networks() {
			network(n.Id)
		}
		for _, svc := range v.Services() {
			if len(svc.Spec.GetPorts()) > 0 || len(svc.Addresses) > 0 {
				service(svc.Id)
			}
		}
		for _, t := range v.Tasks() {
			if state.Listed(t) {
				endpoint(t, t.Id)
			}
		}
		return m
	}
	seen := map[tableChange]bool{}
	for _, c := range changes {
		if c.epoch = 0; seen[c] {
			continue
		}
		seen[c] = true
		switch {
		case c.service != "":
			service(c.service)
		case c.network != "":
			network(c.network)
		default:
			endpoint(v.Task(c.task), c.task)
		}
	}
	return m
}

// endpointOf is a task's row of the table; nil if it has none.
func endpointOf(v state.View, t *api.Task) *api.Endpoint {
	if !state.Listed(t) {
		return nil
	}
	part := state.RotationOf(t)
	return &api.Endpoint{
		TaskId: t.Id, ServiceId: t.ServiceId, NodeId: t.NodeId, Address: t.Status.GetAddress(), Draining: part == state.Draining, Starting: part == state.Out,
		Version: t.Version, HostPorts: v.Version(t.ServiceId, t.Version).GetTask().GetHostPorts(),
		Slot: strings.TrimPrefix(t.SlotId, t.ServiceId+"."), Addresses: byNetwork(v.Service(t.ServiceId).GetStack(), t.Addresses),
	}
}

// byNetwork are addresses by their networks' ids.
func byNetwork(stack string, byName map[string]string) map[string]string {
	if len(byName) == 0 {
		return nil
	}
	all := make(map[string]string, len(byName))
	for name, a := range byName {
		all[state.NetworkID(stack, name)] = a
	}
	return all
}

// endpointNode is what other nodes need to know of one.
func endpointNode(n *api.Node, suspect bool) *api.EndpointNode {
	f := n.Facts
	e := &api.EndpointNode{Id: n.Id, Name: n.Name, Relay: f.GetRelay(), Suspect: suspect, Address: f.GetAddress(), Behind: f.GetPlane().GetBehind(), Relays: relays(n)}
	if p := f.GetPlane(); p.GetMeshKey() != "" && p.MeshPort > 0 && n.MeshAddress != "" {
		e.MeshKey, e.MeshAddress, e.MeshEndpoint = p.MeshKey, n.MeshAddress, net.JoinHostPort(f.GetAddress(), strconv.FormatUint(uint64(p.MeshPort), 10))
	}
	return e
}

// relayLabel is that of nodes which may relay between others.
const relayLabel = "relay"

func relays(n *api.Node) bool {
	value, is := n.Labels[relayLabel]
	return is && value != "false" && value != "no"
}

// suspectAfter without a word, which is when a heartbeat is missing, a node's
// endpoints come last.
const suspectAfter = heartbeat + heartbeat/2

// Followed is how far the nodes that are up have followed the table. A node
// without a session holds all up until it has one, or is down.
func (d *Dispatcher) Followed() state.Followed {
	nodes := d.Store.View().Nodes()
	d.mu.Lock()
	defer d.mu.Unlock()
	f := state.Followed{Applied: math.MaxUint64, InFlight: map[string]uint32{}}
	for _, n := range nodes {
		s := d.sessions[n.Id]
		switch {
		case n.Status != "up":
		case s == nil:
			f.Applied = 0
		case s.follows:
			f.Applied = min(f.Applied, s.followed.GetEpoch())
			for task, n := range s.followed.GetInFlight() {
				f.InFlight[task] += n
			}
		}
	}
	return f
}

// News has a value when what Followed says has changed.
func (d *Dispatcher) News() <-chan struct{} { return d.changed() }

func (d *Dispatcher) changed() chan struct{} {
	d.once.Do(func() { d.news = make(chan struct{}, 1) })
	return d.news
}

func (d *Dispatcher) tell() {
	select {
	case d.changed() <- struct{}{}:
	default:
	}
}

// follow takes what a node says of its data plane.
func (d *Dispatcher) follow(s *session, f *api.Followed) {
	d.mu.Lock()
	s.followed = f
	d.mu.Unlock()
	d.tell()
}

// sentTable is how much of the table a session has sent.
type sentTable struct {
	epoch uint64 // 0: nothing
	nodes int    // turn of the nodes
}

// endpoints is what to send so that an agent has the newest table; nil:
// nothing.
func (d *Dispatcher) endpoints(known *sentTable) *api.Endpoints {
	d.mu.Lock()
	until, nodes := d.ring.until, d.nodes
	changes, whole := d.ring.since(known.epoch)
	d.mu.Unlock()
	turned := known.nodes != nodes.turn
	if !turned && (known.epoch == until || !whole && len(changes) == 0) {
		return nil
	}
	// The view may know more than the ring: then more is sent than promised.
	m := table(d.Store.View(), until, changes, whole)
	if turned {
		m.Nodes, m.NodesChanged = nodes.all, true
	}
	*known = sentTable{until, nodes.turn}
	return m
}

// nodes are where nodes are reached, and which are silent. turn counts the
// changes; 0: none yet.
type nodes struct {
	all  []*api.EndpointNode
	turn int
}

// know replaces what is known of the nodes, and wakes the sessions if that is
// new.
func (d *Dispatcher) know(all []*api.EndpointNode) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.nodes.turn > 0 && slices.EqualFunc(all, d.nodes.all, func(a, b *api.EndpointNode) bool { return proto.Equal(a, b) }) {
		return
	}
	d.nodes = nodes{all, d.nodes.turn + 1}
	for _, s := range d.sessions {
		s.poke()
	}
}

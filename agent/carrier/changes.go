package carrier

import (
	"slices"

	"google.golang.org/protobuf/proto"

	"orch/engine/api"
)

// routeKey tells routes apart.
type routeKey struct {
	hostIP, protocol string
	port             uint32
}

func keyOf(r *api.Route) routeKey { return routeKey{r.HostIp, r.Protocol, r.Port} }

// changes is what leads from one to the other; from nil it is all. Most changes
// concern one service of many.
func changes(from, to *api.Published) *api.PublishRequest {
	if from == nil {
		return &api.PublishRequest{Full: true, Routes: to.Routes, Nodes: to.Nodes, ReachableChanged: true, Reachable: to.Reachable, ForwardedChanged: true, Forwarded: to.Forwarded}
	}
	q := &api.PublishRequest{}
	before := make(map[routeKey]*api.Route, len(from.Routes))
	for _, r := range from.Routes {
		before[keyOf(r)] = r
	}
	for _, r := range to.Routes {
		if !proto.Equal(before[keyOf(r)], r) {
			q.Routes = append(q.Routes, r)
		}
		delete(before, keyOf(r))
	}
	for _, r := range from.Routes {
		if before[keyOf(r)] != nil {
			q.Removed = append(q.Removed, &api.Route{HostIp: r.HostIp, Protocol: r.Protocol, Port: r.Port})
		}
	}
	if !slices.EqualFunc(from.Nodes, to.Nodes, func(a, b *api.RelayNode) bool { return proto.Equal(a, b) }) {
		q.Nodes = to.Nodes
	}
	if !slices.EqualFunc(from.Reachable, to.Reachable, func(a, b *api.RelayTask) bool { return proto.Equal(a, b) }) {
		q.ReachableChanged, q.Reachable = true, to.Reachable
	}
	if !slices.Equal(from.Forwarded, to.Forwarded) {
		q.ForwardedChanged, q.Forwarded = true, to.Forwarded
	}
	return q
}

// follow is what is published after changes.
func follow(from *api.Published, q *api.PublishRequest) *api.Published {
	to := &api.Published{Nodes: q.Nodes, Reachable: q.Reachable, Forwarded: q.Forwarded}
	if from == nil || q.Full {
		to.Routes = q.Routes
		return to
	}
	other := map[routeKey]bool{}
	for _, r := range slices.Concat(q.Routes, q.Removed) {
		other[keyOf(r)] = true
	}
	for _, r := range from.Routes {
		if !other[keyOf(r)] {
			to.Routes = append(to.Routes, r)
		}
	}
	to.Routes = append(to.Routes, q.Routes...)
	if len(q.Nodes) == 0 {
		to.Nodes = from.Nodes
	}
	if !q.ReachableChanged {
		to.Reachable = from.Reachable
	}
	if !q.ForwardedChanged {
		to.Forwarded = from.Forwarded
	}
	return to
}

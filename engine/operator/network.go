package operator

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"orch/engine/api"
	"orch/engine/state"
)

// Nodes puts questions to nodes about their data planes.
type Nodes interface {
	Ask(ctx context.Context, node string, ask *api.Ask) (*api.Answer, error)
}

func (s *Server) ListNetworks(context.Context, *connect.Request[api.ListNetworksRequest]) (*connect.Response[api.ListNetworksResponse], error) {
	v := s.Store.View()
	out := &api.ListNetworksResponse{}
	byID := map[string]*api.NetworkStatus{}
	for _, n := range v.Networks() {
		byID[n.Id] = &api.NetworkStatus{Network: n}
		out.Networks = append(out.Networks, byID[n.Id])
	}
	for _, svc := range v.Services() {
		for name, address := range svc.Addresses {
			if n := byID[state.NetworkID(svc.Stack, name)]; n != nil {
				n.Services = append(n.Services, &api.NetworkMember{Id: svc.Id, Address: address})
			}
		}
	}
	for _, t := range v.Tasks() {
		if !state.OnNetworks(t) {
			continue
		}
		m := api.NetworkMember{Id: t.Id, Node: v.Node(t.NodeId).GetName(), State: "starting"}
		switch state.RotationOf(t) {
		case state.In:
			m.State = "ready"
		case state.Draining:
			m.State = "draining"
		case state.Out:
			if t.Desired == api.TaskDesired_TASK_DESIRED_STOP {
				m.State = "stopping"
			}
		}
		for name, address := range t.Addresses {
			if n := byID[state.NetworkID(v.Service(t.ServiceId).GetStack(), name)]; n != nil {
				n.Tasks = append(n.Tasks, &api.NetworkMember{Id: m.Id, Address: address, Node: m.Node, State: m.State})
			}
		}
	}
	return connect.NewResponse(out), nil
}

// checkWithin a node has looked at all the others.
const checkWithin = 10 * time.Second

func (s *Server) CheckNetworks(ctx context.Context, r *connect.Request[api.CheckNetworksRequest]) (*connect.Response[api.CheckNetworksResponse], error) {
	ctx, cancel := context.WithTimeout(ctx, checkWithin)
	defer cancel()
	v := s.Store.View()
	nodes := v.Nodes()
	if r.Msg.From != "" {
		n, err := node(v, r.Msg.From)
		if err != nil {
			return nil, err
		}
		nodes = []*api.Node{n}
	}
	slices.SortFunc(nodes, func(a, b *api.Node) int { return strings.Compare(a.Name, b.Name) })
	all := make([][]*api.Finding, len(nodes))
	var work sync.WaitGroup
	for i, n := range nodes {
		work.Go(func() {
			err := errors.New(n.StatusReason)
			var a *api.Answer
			if n.Status == "up" {
				a, err = s.Nodes.Ask(ctx, n.Id, &api.Ask{What: &api.Ask_Check{Check: &api.CheckQuery{Now: timestamppb.Now()}}})
			}
			if err != nil {
				all[i] = []*api.Finding{{Node: n.Name, What: "node", Text: "it can't be asked: " + err.Error()}}
				return
			}
			all[i] = a.Findings
		})
	}
	work.Wait()
	return connect.NewResponse(&api.CheckNetworksResponse{Findings: slices.Concat(all...)}), nil
}

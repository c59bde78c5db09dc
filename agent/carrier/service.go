package carrier

import (
	"context"
	"os"
	"sync"

	"connectrpc.com/connect"

	"orch/engine/api"
)

// service answers the agent: api.CarrierService.
type service struct{ p *process }

func (s service) Hello(context.Context, *connect.Request[api.HelloRequest]) (*connect.Response[api.HelloResponse], error) {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	return connect.NewResponse(&api.HelloResponse{Pid: int32(os.Getpid()), Retired: s.p.retired, RelayPort: s.p.port}), nil
}

func (s service) Publish(_ context.Context, r *connect.Request[api.PublishRequest]) (*connect.Response[api.PublishResponse], error) {
	s.p.publish(r.Msg)
	return connect.NewResponse(&api.PublishResponse{}), nil
}

func (s service) Resolve(_ context.Context, r *connect.Request[api.Names]) (*connect.Response[api.ResolveResponse], error) {
	s.p.resolve(r.Msg)
	return connect.NewResponse(&api.ResolveResponse{}), nil
}

func (s service) Admit(_ context.Context, r *connect.Request[api.Admission]) (*connect.Response[api.AdmitResponse], error) {
	port, err := s.p.admit(r.Msg)
	if err != nil {
		return nil, connect.NewError(connect.CodeUnavailable, err)
	}
	return connect.NewResponse(&api.AdmitResponse{Port: port}), nil
}

func (s service) InFlight(_ context.Context, r *connect.Request[api.InFlightRequest]) (*connect.Response[api.InFlightResponse], error) {
	wanted := map[string]bool{}
	for _, t := range r.Msg.Tasks {
		wanted[t] = true
	}
	return connect.NewResponse(&api.InFlightResponse{Tasks: s.p.ports.InFlight(wanted)}), nil
}

func (s service) Traffic(_ context.Context, r *connect.Request[api.TrafficQuery]) (*connect.Response[api.TrafficCount], error) {
	return connect.NewResponse(s.p.ports.Traffic(r.Msg.Service, r.Msg.Version, r.Msg.Window.AsDuration())), nil
}

func (s service) Inspect(ctx context.Context, r *connect.Request[api.InspectRequest]) (*connect.Response[api.Inspection], error) {
	seen := &api.Inspection{Unreached: map[string]string{}, ForwardError: s.p.between.trouble()}
	var work sync.WaitGroup
	work.Go(func() {
		n, err := s.p.names.Check(ctx)
		if seen.Networks = uint32(n); err != nil {
			seen.NamesError = err.Error()
		}
	})
	var mu sync.Mutex
	for _, node := range r.Msg.Nodes {
		work.Go(func() {
			if err := s.p.others.Try(ctx, node); err != nil {
				mu.Lock()
				defer mu.Unlock()
				seen.Unreached[node] = err.Error()
			}
		})
	}
	work.Wait()
	return connect.NewResponse(seen), nil
}

func (s service) Watch(ctx context.Context, _ *connect.Request[api.WatchRequest], out *connect.ServerStream[api.CarrierEvent]) error {
	return s.p.hub.watch(ctx, out.Send)
}

func (s service) Retire(context.Context, *connect.Request[api.RetireRequest]) (*connect.Response[api.RetireResponse], error) {
	s.p.retire()
	return connect.NewResponse(&api.RetireResponse{}), nil
}

func (s service) End(context.Context, *connect.Request[api.EndRequest]) (*connect.Response[api.EndResponse], error) {
	s.p.end()
	return connect.NewResponse(&api.EndResponse{}), nil
}

package operator

import (
	"context"
	"time"

	"connectrpc.com/connect"

	"orch/engine/api"
	"orch/engine/ca"
	"orch/engine/state"
	"orch/engine/status"
)

func (s *Server) SignalRollout(ctx context.Context, r *connect.Request[api.SignalRolloutRequest]) (*connect.Response[api.SignalRolloutResponse], error) {
	_, err := s.propose(ctx, &api.Command{Kind: &api.Command_SignalRollout{SignalRollout: &api.SignalRollout{
		ServiceId: r.Msg.Service, Signal: r.Msg.Signal, By: ca.From(ctx).ID,
	}}})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&api.SignalRolloutResponse{}), nil
}

// WatchRollout sends the status of a service's newest rollout whenever it
// changes. It ends with the service.
func (s *Server) WatchRollout(ctx context.Context, r *connect.Request[api.WatchRolloutRequest], out *connect.ServerStream[api.RolloutStatus]) error {
	return follow(ctx, s, out, notFound("service", r.Msg.Service), nil, func(v state.View) *api.RolloutStatus {
		svc := v.Service(r.Msg.Service)
		if svc == nil {
			return nil
		}
		return status.Rollout(v, svc, time.Now())
	})
}

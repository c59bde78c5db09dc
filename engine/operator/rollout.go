package operator

import (
	"context"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"orch/engine/api"
	"orch/engine/ca"
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
	w := s.Watch()
	defer w.Stop()
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	var last *api.RolloutStatus
	for {
		v := s.Store.View()
		svc := v.Service(r.Msg.Service)
		if svc == nil {
			if last == nil {
				return notFound("service", r.Msg.Service)
			}
			return nil
		}
		if now := status.Rollout(v, svc, time.Now()); last == nil || !proto.Equal(last, now) {
			if err := out.Send(now); err != nil {
				return err
			}
			last = now
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.Wake():
			w.Take()
		case <-tick.C:
		}
	}
}

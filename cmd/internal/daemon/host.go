package daemon

import (
	"context"
	"errors"
	"os"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"orch/engine/api"
	"orch/engine/api/apiconnect"
	"orch/engine/ca"
	"orch/engine/folder"
	"orch/engine/reach"
)

// host answers for a daemon on its socket: api.HostService.
type host struct{ d *Daemon }

func (h host) Status(context.Context, *connect.Request[api.HostStatusRequest]) (*connect.Response[api.HostStatus], error) {
	d := h.d
	m := d.folder.Membership()
	s := &api.HostStatus{
		NodeId: d.folder.ID, Role: m.GetRole(), Name: m.GetName(), ClusterId: m.GetClusterId(), ClusterName: m.GetClusterName(),
		Version: d.cfg.Version, Pid: int32(os.Getpid()), Engines: m.GetEngines(),
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s.State, s.Reason = d.state, d.reason
	if d.engine != nil {
		s.Address = d.engine.Address()
	}
	if d.wallet != nil {
		if leaf := d.wallet.Leaf(); leaf != nil {
			s.CertificateUntil = timestamppb.New(leaf.NotAfter)
		}
	}
	return connect.NewResponse(s), nil
}

func (h host) Unlock(_ context.Context, r *connect.Request[api.UnlockRequest]) (*connect.Response[api.UnlockResponse], error) {
	key, err := folder.ParseUnlockKey(r.Msg.Key)
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	if err := h.d.folder.Unlock(key); err != nil {
		return nil, connect.NewError(connect.CodePermissionDenied, err)
	}
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	if h.d.state == "locked" {
		h.d.state, h.d.reason = "starting", ""
		close(h.d.unlocked)
	}
	return connect.NewResponse(&api.UnlockResponse{}), nil
}

func (h host) LeaveCluster(ctx context.Context, r *connect.Request[api.LeaveClusterRequest]) (*connect.Response[api.LeaveClusterResponse], error) {
	d := h.d
	if d.folder.Membership() == nil {
		return nil, connect.NewError(connect.CodeFailedPrecondition, errors.New("this host is in no cluster"))
	}
	if err := d.tellLeave(ctx); err != nil {
		if !r.Msg.Force {
			return nil, err
		}
		d.log.Warn("leaving without the cluster's consent", "error", err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveWithin)
	defer cancel()
	d.leaving()
	if err := d.clear(ctx); err != nil {
		return nil, err
	}
	// The answer goes out before the daemon ends: its server waits for it.
	d.finish()
	return connect.NewResponse(&api.LeaveClusterResponse{}), nil
}

// tellLeave asks the cluster to let this node go.
func (d *Daemon) tellLeave(ctx context.Context) error {
	d.mu.Lock()
	e, began := d.engine, d.wallet != nil
	d.mu.Unlock()
	if !began {
		return connect.NewError(connect.CodeFailedPrecondition, folder.ErrLocked)
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if e != nil {
		e.HandOver() // another engine sees to it that this one is gone from the voters
	}
	client, done := d.nodeService()
	defer done()
	_, err := client.Leave(ctx, connect.NewRequest(&api.LeaveRequest{}))
	return err
}

// nodeService reaches the cluster's engines as this node: others, if there
// are any, as this host's own may be what is in trouble.
func (d *Daemon) nodeService() (apiconnect.NodeServiceClient, func()) {
	others := func() []string {
		all := d.engines()
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.engine != nil && len(all) > 1 {
			return all[1:]
		}
		return all
	}
	h := reach.New(others, d.wallet.Client(ca.ProtoHTTP))
	return apiconnect.NewNodeServiceClient(h, reach.URL, connect.WithGRPC()), h.CloseIdleConnections
}

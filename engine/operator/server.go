package operator

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"orch/engine/api"
	"orch/engine/enroll"
	"orch/engine/rollout"
	"orch/engine/seal"
	"orch/engine/state"
	"orch/engine/status"
)

// Store is what handlers need of the replicated state.
type Store interface {
	Propose(context.Context, *api.Command) (state.Result, error)
	View() state.View
	Leader() (id, address string)
}

// Watcher tells what changed.
type Watcher interface {
	Wake() <-chan struct{}
	Take() (changes []state.Change, all bool)
	Stop()
}

// Evaluator turns a bundle into a spec, away from this process's memory.
type Evaluator interface {
	Evaluate(ctx context.Context, b *api.Bundle, paramsJSON string) (*api.StackSpec, []string, error)
}

// LogSource carries the lines of tasks, by node.
type LogSource interface {
	Logs(ctx context.Context, byNode map[string][]string, ask *api.LogRequest, emit func(*api.LogBatch) error) error
}

// Engines are the cluster's, as this engine knows them.
type Engines interface {
	Engines() []*api.EngineStatus
	MayLeave(node string) error
}

// Server implements api.ClusterService. Who may call what is checked before
// a request comes here, by package access.
type Server struct {
	Store     Store
	Watch     func() Watcher
	Evaluator Evaluator
	Strategy  rollout.Strategy
	LogSource LogSource
	Nodes     Nodes
	Key       seal.Key
	History   *Ring
	Version   string
	Desk      *enroll.Desk
	Engines   Engines
	NodeID    string // of the engine that answers
}

// propose commits a command and gives refusals the code that tells a client
// what to do.
func (s *Server) propose(ctx context.Context, c *api.Command) (state.Result, error) {
	c.Time = timestamppb.Now()
	r, err := s.Store.Propose(ctx, c)
	var refusal *state.Refusal
	switch {
	case err == nil:
		return r, nil
	case errors.As(err, &refusal):
		codes := map[state.RefusalKind]connect.Code{
			state.Invalid: connect.CodeInvalidArgument, state.Stale: connect.CodeAborted,
			state.NotFound: connect.CodeNotFound, state.InUse: connect.CodeFailedPrecondition,
		}
		return r, connect.NewError(codes[refusal.Kind], err)
	}
	return r, enroll.Unavailable(err)
}

func notFound(kind, name string) error {
	return connect.NewError(connect.CodeNotFound, errors.New("there is no "+kind+" "+quoted(name)))
}

func quoted(s string) string { return "\"" + s + "\"" }

func (s *Server) Info(ctx context.Context, _ *connect.Request[api.InfoRequest]) (*connect.Response[api.InfoResponse], error) {
	v := s.Store.View()
	leader, _ := s.Store.Leader()
	c := proto.CloneOf(v.Cluster())
	if c != nil {
		c.Trust, c.UnlockKey, c.Removed = nil, nil, nil
	}
	return connect.NewResponse(&api.InfoResponse{
		Cluster: c, Leader: leader, Version: s.Version, AppliedIndex: v.Index(), Pid: int32(os.Getpid()),
		Engines: s.Engines.Engines(), Trust: enroll.Progress(v), Autolock: len(v.Cluster().GetUnlockKey()) > 0, NodeId: s.NodeID,
	}), nil
}

func (s *Server) ListStacks(ctx context.Context, _ *connect.Request[api.ListStacksRequest]) (*connect.Response[api.ListStacksResponse], error) {
	return connect.NewResponse(&api.ListStacksResponse{Stacks: s.stacks("")}), nil
}

func (s *Server) ListServices(ctx context.Context, r *connect.Request[api.ListServicesRequest]) (*connect.Response[api.ListServicesResponse], error) {
	if name := r.Msg.Stack; name != "" && s.Store.View().Stack(name) == nil {
		return nil, notFound("stack", name)
	}
	return connect.NewResponse(&api.ListServicesResponse{Stacks: s.stacks(r.Msg.Stack)}), nil
}

func (s *Server) stacks(only string) []*api.StackStatus {
	v, now := s.Store.View(), time.Now()
	var all []*api.StackStatus
	for _, st := range v.Stacks() {
		if only == "" || only == st.Name {
			all = append(all, status.Stack(v, st.Name, now))
		}
	}
	return all
}

func (s *Server) ListReleases(ctx context.Context, r *connect.Request[api.ListReleasesRequest]) (*connect.Response[api.ListReleasesResponse], error) {
	v := s.Store.View()
	if v.Stack(r.Msg.Stack) == nil {
		return nil, notFound("stack", r.Msg.Stack)
	}
	out := &api.ListReleasesResponse{}
	all := v.Releases(r.Msg.Stack)
	for i := len(all) - 1; i >= 0; i-- {
		r := all[i]
		if why := halted(v, r); why != "" {
			r = proto.CloneOf(r)
			r.Reason = why
		}
		out.Releases = append(out.Releases, r)
	}
	return connect.NewResponse(out), nil
}

func (s *Server) ListTasks(ctx context.Context, r *connect.Request[api.ListTasksRequest]) (*connect.Response[api.ListTasksResponse], error) {
	v := s.Store.View()
	switch {
	case r.Msg.Stack != "" && v.Stack(r.Msg.Stack) == nil:
		return nil, notFound("stack", r.Msg.Stack)
	case r.Msg.Service != "" && v.Service(r.Msg.Service) == nil:
		return nil, notFound("service", r.Msg.Service)
	}
	out := &api.ListTasksResponse{NodeNames: map[string]string{}}
	for _, n := range v.Nodes() {
		out.NodeNames[n.Id] = n.Name
	}
	for _, svc := range v.Services() {
		if r.Msg.Stack != "" && svc.Stack != r.Msg.Stack || r.Msg.Service != "" && svc.Id != r.Msg.Service {
			continue
		}
		for _, t := range v.TasksOf(svc.Id) {
			if (r.Msg.All || !state.Ended(t.Status.GetState())) && (r.Msg.Node == "" || r.Msg.Node == t.NodeId || r.Msg.Node == out.NodeNames[t.NodeId]) {
				out.Tasks = append(out.Tasks, t)
			}
		}
	}
	return connect.NewResponse(out), nil
}

func (s *Server) ListNodes(ctx context.Context, _ *connect.Request[api.ListNodesRequest]) (*connect.Response[api.ListNodesResponse], error) {
	leader, _ := s.Store.Leader()
	return connect.NewResponse(&api.ListNodesResponse{Nodes: s.Store.View().Nodes(), Leader: leader}), nil
}

func (s *Server) InspectService(ctx context.Context, r *connect.Request[api.InspectServiceRequest]) (*connect.Response[api.InspectServiceResponse], error) {
	v := s.Store.View()
	svc := v.Service(r.Msg.Service)
	if svc == nil {
		return nil, notFound("service", r.Msg.Service)
	}
	return connect.NewResponse(&api.InspectServiceResponse{
		Service: svc, Status: status.Service(v, svc, time.Now()), Slots: v.SlotsOf(svc.Id),
		Tasks: v.TasksOf(svc.Id), Rollouts: v.RolloutsOf(svc.Id),
	}), nil
}

// halted says which rollouts keep a release under way from going on until an
// operator comes; "" if none does.
func halted(v state.View, r *api.Release) string {
	if r.Outcome != "" || r.Phase == "queued" {
		return ""
	}
	var all []string
	for _, svc := range v.ServicesOf(r.Stack) {
		if ro := v.Rollout(svc.RolloutId); ro.GetRelease() == r.Number && state.Halted(ro) {
			all = append(all, fmt.Sprintf("%s is %s: %s", svc.Name, ro.Outcome, ro.Reason))
		}
	}
	return strings.Join(all, "; ")
}

package operator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"orch/engine/api"
	"orch/engine/spec"
	"orch/engine/state"
	"orch/engine/status"
)

// lookAgain is how often a watched stack is looked at though no row changed:
// time alone changes a status, too.
const lookAgain = 250 * time.Millisecond

// WatchStack sends the stack's status whenever it changes.
func (s *Server) WatchStack(ctx context.Context, r *connect.Request[api.WatchStackRequest], out *connect.ServerStream[api.StackStatus]) error {
	gone := &api.StackStatus{Stack: r.Msg.Stack, Removed: true, Converged: true}
	return follow(ctx, s, out, notFound("stack", r.Msg.Stack), gone, func(v state.View) *api.StackStatus {
		return status.Stack(v, r.Msg.Stack, time.Now())
	})
}

// message is a T of which pointers are protobuf messages.
type message[T any] interface {
	*T
	proto.Message
}

// follow sends what look sees, and again whenever that changes, until it is
// nil: then gone comes last, if there is one. What is nil from the start is
// missing.
func follow[T any, P message[T]](ctx context.Context, s *Server, out *connect.ServerStream[T], missing error, gone P, look func(state.View) P) error {
	w := s.Watch()
	defer w.Stop()
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	var last P
	for {
		now := look(s.Store.View())
		switch {
		case now == nil && last == nil:
			return missing
		case now == nil && gone == nil:
			return nil
		case now == nil:
			return out.Send(gone)
		case last == nil || !proto.Equal(last, now):
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

// Events sends what is remembered, then, if asked to follow, what comes.
func (s *Server) Events(ctx context.Context, r *connect.Request[api.EventsRequest], out *connect.ServerStream[api.Event]) error {
	from := uint64(0)
	for {
		events, next, more := s.History.Since(from)
		for _, e := range events {
			if r.Msg.Stack == "" || r.Msg.Stack == e.Stack {
				if err := out.Send(e); err != nil {
					return err
				}
			}
		}
		if from = next; !r.Msg.Follow {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-more:
		}
	}
}

// Logs sends the lines of a stack, a service or a task. Followed logs take
// in tasks that come later.
func (s *Server) Logs(ctx context.Context, r *connect.Request[api.LogsRequest], out *connect.ServerStream[api.LogBatch]) error {
	v := s.Store.View()
	m := r.Msg
	switch {
	case m.Task != "":
		if v.Task(m.Task) == nil {
			return notFound("task", m.Task)
		}
	case v.Stack(m.Stack) == nil:
		return notFound("stack", m.Stack)
	case m.Service != "" && v.Service(spec.ServiceID(m.Stack, m.Service)) == nil:
		return notFound("service", spec.ServiceID(m.Stack, m.Service))
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f := follower{server: s, request: m, known: map[string]bool{}, batches: make(chan *api.LogBatch, 16), ctx: ctx}
	return f.run(out)
}

// follower joins the log streams of tasks that are known by and by.
type follower struct {
	server  *Server
	request *api.LogsRequest
	known   map[string]bool
	batches chan *api.LogBatch
	ctx     context.Context
	under   int
	ended   chan error
}

func (f *follower) run(out *connect.ServerStream[api.LogBatch]) error {
	f.ended = make(chan error, 1)
	w := f.server.Watch()
	defer w.Stop()
	f.more(true)
	for {
		if f.under == 0 && (!f.request.Follow || f.over()) {
			return nil
		}
		select {
		case <-f.ctx.Done():
			return f.ctx.Err()
		case b := <-f.batches:
			if len(b.Lines) == 0 && b.Error == "" {
				continue
			}
			if err := out.Send(b); err != nil {
				return err
			}
		case err := <-f.ended:
			f.under--
			if err != nil && !errors.Is(err, context.Canceled) {
				return fmt.Errorf("cannot read the logs: %w", err)
			}
			for len(f.batches) > 0 {
				if b := <-f.batches; len(b.Lines) > 0 || b.Error != "" {
					if err := out.Send(b); err != nil {
						return err
					}
				}
			}
		case <-w.Wake():
			w.Take()
			if f.request.Follow {
				f.more(false)
			}
		}
	}
}

// over says that nothing more can come: the stack or the task is gone.
func (f *follower) over() bool {
	v := f.server.Store.View()
	if f.request.Task != "" {
		t := v.Task(f.request.Task)
		return t == nil || state.Ended(t.Status.GetState())
	}
	st := v.Stack(f.request.Stack)
	return st == nil || st.Stopped
}

// more asks for the tasks that weren't known yet; later ones from their
// first line.
func (f *follower) more(first bool) {
	byNode := map[string][]string{}
	for _, t := range f.tasks() {
		if t.NodeId != "" && !f.known[t.Id] {
			f.known[t.Id] = true
			byNode[t.NodeId] = append(byNode[t.NodeId], t.Id)
		}
	}
	if len(byNode) == 0 {
		return
	}
	ask := &api.LogRequest{Follow: f.request.Follow, Tail: f.request.Tail, Since: f.request.Since}
	if !first {
		ask.Tail = -1
	}
	f.under++
	go func() { // ends with ctx, or when the tasks' lines do
		err := f.server.LogSource.Logs(f.ctx, byNode, ask, func(b *api.LogBatch) error {
			select {
			case f.batches <- b:
				return nil
			case <-f.ctx.Done():
				return f.ctx.Err()
			}
		})
		select {
		case f.ended <- err:
		case <-f.ctx.Done():
		}
	}()
}

func (f *follower) tasks() []*api.Task {
	v := f.server.Store.View()
	if f.request.Task != "" {
		if t := v.Task(f.request.Task); t != nil {
			return []*api.Task{t}
		}
		return nil
	}
	var all []*api.Task
	for _, svc := range v.ServicesOf(f.request.Stack) {
		if f.request.Service == "" || svc.Name == f.request.Service {
			all = append(all, v.TasksOf(svc.Id)...)
		}
	}
	return all
}

package operator

import (
	"bytes"
	"fmt"
	"maps"
	"strings"
	"sync"

	"google.golang.org/protobuf/types/known/timestamppb"

	"orch/engine/api"
	"orch/engine/rollout"
	"orch/engine/spec"
	"orch/engine/state"
)

// ringSize events are remembered.
const ringSize = 4096

// Ring remembers the newest events and tells those who follow.
type Ring struct {
	mu   sync.Mutex
	all  []*api.Event // oldest first
	next uint64       // number of the next event ever
	news chan struct{}
}

// NewRing makes an empty ring.
func NewRing() *Ring { return &Ring{news: make(chan struct{})} }

// Add takes what log entries changed.
func (r *Ring) Add(changes []state.Change) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.next
	for _, c := range changes {
		for _, d := range c.Deltas {
			for _, e := range Describe(d) {
				e.Time, e.Index = timestamppb.New(c.Time), c.Index
				r.all = append(r.all, e)
				r.next++
			}
		}
	}
	if n := len(r.all) - ringSize; n > 0 {
		r.all = append([]*api.Event(nil), r.all[n:]...)
	}
	if r.next != before {
		close(r.news)
		r.news = make(chan struct{})
	}
}

// Since returns the events from number from on that are still remembered,
// the number after them, and a channel that closes when there are more.
func (r *Ring) Since(from uint64) (events []*api.Event, next uint64, more <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	first := r.next - uint64(len(r.all))
	from = max(from, first)
	return append([]*api.Event(nil), r.all[from-first:]...), r.next, r.news
}

// Describe tells what an operator would care about in one row's change.
func Describe(d state.Delta) []*api.Event {
	switch after := d.After.(type) {
	case *api.Task:
		before, _ := d.Before.(*api.Task)
		return taskEvent(before, after)
	case *api.Node:
		before, _ := d.Before.(*api.Node)
		return nodeEvent(before, after)
	case *api.Cluster:
		before, _ := d.Before.(*api.Cluster)
		return clusterEvent(before, after)
	case *api.Operator:
		return []*api.Event{{Scope: "cluster", Type: "operator.added", Message: after.Name + " (" + after.Role + "), by " + after.CreatedBy}}
	case *api.Release:
		before, _ := d.Before.(*api.Release)
		return releaseEvent(before, after)
	case *api.Stack:
		before, _ := d.Before.(*api.Stack)
		return stackEvent(before, after)
	case *api.Service:
		before, _ := d.Before.(*api.Service)
		return serviceEvent(before, after)
	case *api.Rollout:
		before, _ := d.Before.(*api.Rollout)
		return rolloutEvent(before, after)
	case nil:
		switch gone := d.Before.(type) {
		case *api.Service:
			return []*api.Event{{Scope: "service", Type: "service.removed", Stack: gone.Stack, Service: gone.Name}}
		case *api.Stack:
			return []*api.Event{{Scope: "stack", Type: "stack.removed", Stack: gone.Name}}
		case *api.Node:
			return []*api.Event{{Scope: "node", Type: "node.removed", Node: gone.Name}}
		case *api.Operator:
			return []*api.Event{{Scope: "cluster", Type: "operator.removed", Message: gone.Name}}
		}
	}
	return nil
}

// StateName is a task state as people and JSON read it: "running".
func StateName(s api.TaskState) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "TASK_STATE_"))
}

func taskEvent(before, after *api.Task) []*api.Event {
	stack, service := spec.SplitServiceID(after.ServiceId)
	e := &api.Event{Scope: "task", Stack: stack, Service: service, Task: after.Id, Node: after.NodeId, Message: after.Status.GetMessage()}
	was, is := before.GetStatus(), after.Status
	switch {
	case before == nil || was.GetState() != is.GetState():
		e.Type = "task." + StateName(is.GetState())
		if e.Message == "" {
			e.Message = after.Wait.GetReason()
		}
	case was.GetReady() != is.GetReady():
		e.Type = "task.unready"
		if is.GetReady() {
			e.Type = "task.ready"
		}
	case before.Wait.GetReason() != after.Wait.GetReason() && after.Wait != nil:
		e.Type, e.Message = "task.waits", after.Wait.Reason
	default:
		return nil
	}
	return []*api.Event{e}
}

func clusterEvent(before, after *api.Cluster) []*api.Event {
	e := &api.Event{Scope: "cluster"}
	was, is := before.GetTrust(), after.GetTrust()
	switch {
	case before == nil:
		e.Type, e.Message = "cluster.created", after.Name
	case is.GetNext() != nil && was.GetNext() == nil:
		e.Type, e.Message = "cluster.ca", "a new CA is being spread"
	case is.GetPrevious() != nil && was.GetPrevious() == nil:
		e.Type, e.Message = "cluster.ca", "the new CA signs"
	case is.GetPrevious() == nil && was.GetPrevious() != nil:
		e.Type, e.Message = "cluster.ca", "the old CA is dropped"
	case !bytes.Equal(before.UnlockKey, after.UnlockKey):
		e.Type, e.Message = "cluster.autolock", "on, with a new key"
		if len(after.UnlockKey) == 0 {
			e.Message = "off"
		}
	default:
		return nil
	}
	return []*api.Event{e}
}

func nodeEvent(before, after *api.Node) []*api.Event {
	e := &api.Event{Scope: "node", Node: after.Name, Message: after.StatusReason}
	switch {
	case before == nil:
		e.Type = "node.joined"
	case before.Status != after.Status:
		e.Type = "node." + after.Status
	case before.Availability != after.Availability:
		e.Type, e.Message = "node.availability", after.Availability
	case before.Role != after.Role:
		e.Type, e.Message = "node.role", after.Role
	case !maps.Equal(before.Labels, after.Labels):
		e.Type, e.Message = "node.labels", fmt.Sprint(after.Labels)
	case before.EngineAddress != after.EngineAddress:
		e.Type, e.Message = "node.address", after.EngineAddress
	default:
		return nil
	}
	return []*api.Event{e}
}

func stackEvent(before, after *api.Stack) []*api.Event {
	e := &api.Event{Scope: "stack", Stack: after.Name}
	switch {
	case before == nil:
		e.Type = "stack.created"
	case !before.Stopped && after.Stopped:
		e.Type = "stack.stopping"
	case before.Stopped && !after.Stopped:
		e.Type = "stack.started"
	case !before.Removed && after.Removed:
		e.Type = "stack.removing"
	default:
		return nil
	}
	return []*api.Event{e}
}

func serviceEvent(before, after *api.Service) []*api.Event {
	e := &api.Event{Scope: "service", Stack: after.Stack, Service: after.Name}
	switch {
	case before == nil:
		e.Type = "service.created"
	case before.Version != after.Version:
		e.Type, e.Message = "service.version", before.Version+" -> "+after.Version
	case before.Spec.GetReplicas() != after.Spec.GetReplicas():
		e.Type, e.Message = "service.scaled", fmt.Sprintf("%d -> %d", before.Spec.Replicas, after.Spec.Replicas)
	case after.Run != nil && before.Run.GetNumber() != after.Run.Number:
		e.Type, e.Message = "job.started", fmt.Sprintf("run %d", after.Run.Number)
	case after.Run != nil && before.Run.GetOutcome() != after.Run.Outcome:
		e.Type, e.Message = "job."+after.Run.Outcome, after.Run.Reason
	default:
		return nil
	}
	return []*api.Event{e}
}

func releaseEvent(before, after *api.Release) []*api.Event {
	e := &api.Event{Scope: "stack", Stack: after.Stack, Message: fmt.Sprintf("release %d", after.Number)}
	if before == nil {
		e.Type, e.Message = "release.created", fmt.Sprintf("release %d (%s)", after.Number, after.Cause)
		if after.Phase == "queued" {
			e.Type = "release.queued"
		}
		return []*api.Event{e}
	}
	switch {
	case before.Outcome != after.Outcome && after.Outcome != "":
		e.Type = "release." + after.Outcome
	case before.Outcome != "" && after.Outcome == "":
		e.Type = "release.resumed"
	case before.Phase != after.Phase && after.Phase == "rollback":
		e.Type = "release.rollback"
	case before.Phase != after.Phase:
		e.Type = "release.started"
	default:
		return nil
	}
	if after.Reason != "" {
		e.Message += ": " + after.Reason
	}
	return []*api.Event{e}
}

func rolloutEvent(before, after *api.Rollout) []*api.Event {
	stack, service := spec.SplitServiceID(after.ServiceId)
	e := &api.Event{Scope: "rollout", Stack: stack, Service: service, Message: after.Reason}
	switch {
	case before == nil:
		e.Type, e.Message = "rollout.started", after.FromVersion+" -> "+after.ToVersion
	case before.Outcome != after.Outcome && after.Outcome != "":
		e.Type = "rollout." + after.Outcome
	case before.Phase != after.Phase && after.Phase == "rollback":
		e.Type = "rollout.rollback"
	case before.Outcome != "" && after.Outcome == "":
		e.Type = "rollout.resumed"
	case len(before.Journal) < len(after.Journal):
		op := after.Journal[len(after.Journal)-1]
		if op.Kind == "event" {
			e.Type, e.Message = "rollout.event", op.Text
			break
		}
		_, e.Message, _ = strings.Cut(rollout.Text(op), " ")
		e.Type = "rollout." + op.Kind
	case len(after.Journal) > 0 && len(before.Journal) == len(after.Journal):
		op := after.Journal[len(after.Journal)-1]
		if op.By == "" || before.Journal[len(before.Journal)-1].By != "" {
			return nil
		}
		e.Type, e.Message = "rollout.signal", op.Text+" by "+op.By
	default:
		return nil
	}
	return []*api.Event{e}
}

package simulate

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"orch/engine/api"
	"orch/engine/rollout"
	"orch/engine/state"
)

// From makes a world that is a copy of a cluster.
func From(v state.View, now time.Time) (*World, error) {
	var snapshot bytes.Buffer
	if err := v.WriteSnapshot(&snapshot); err != nil {
		return nil, err
	}
	w := empty(now)
	w.index = v.Index()
	if err := w.State.Restore(&snapshot); err != nil {
		return nil, err
	}
	for _, n := range v.Nodes() {
		a := &agent{node: n.Id, down: n.Status == "down", local: map[string]*api.TaskStatus{}}
		for _, t := range v.TasksOn(n.Id) {
			if !state.Ended(t.Status.GetState()) {
				a.local[t.Id] = proto.CloneOf(t.Status)
			}
		}
		w.agents[n.Id] = a
	}
	return w, nil
}

// Good is a Prober to whom everything is well.
type Good struct{}

// Probe implements rollout.Prober.
func (Good) Probe(string, rollout.ProbeOf) *api.Sample {
	return &api.Sample{Ok: true, Reason: "supposed to be good"}
}

// farthest is how far a look ahead goes, in simulated time and in turns.
const (
	farthest  = 7 * 24 * time.Hour
	mostTurns = 20_000
)

// Ahead says what a release would do to a cluster if all went well: tasks are
// ready at once, jobs succeed, probes are good, and an operator sends each
// signal that a strategy waits for.
func Ahead(v state.View, p *api.PutRelease, s rollout.Strategy, now time.Time) (rollouts []*api.PlannedRollout, tasks []*api.PlannedTask, err error) {
	w, err := From(v, now)
	if err != nil {
		return nil, nil, err
	}
	w.Strategy, w.Prober, w.JobsEnd = s, Good{}, true
	stack := p.Release.Stack
	w.Choose = func(v state.View, _ time.Time) (ids []string) {
		for _, s := range v.ServicesOf(stack) {
			ids = append(ids, s.Id)
		}
		return ids
	}
	made := map[string]*api.PlannedTask{}
	w.Committed = func(v state.View, deltas []state.Delta) error {
		for _, d := range deltas {
			note(v, made, d)
		}
		return nil
	}
	r, err := w.Propose(&api.Command{Kind: &api.Command_PutRelease{PutRelease: p}})
	if err != nil {
		return nil, nil, err
	}
	begun := w.Now
	for range mostTurns {
		if err := w.Settle(); errors.Is(err, errRestless) {
			break // its ops show which strategy goes on for ever
		} else if err != nil {
			return nil, nil, err
		}
		if w.promote(stack) {
			continue
		}
		next := w.nextWake()
		if rel := w.State.View().Release(stack, r.Release); rel.GetOutcome() != "" || next.IsZero() || next.Sub(begun) > farthest {
			break
		}
		w.Now = next
	}
	after := w.State.View()
	for _, svc := range after.ServicesOf(stack) {
		if ro := after.Rollout(svc.RolloutId); ro != nil && ro.Release == r.Release {
			rollouts = append(rollouts, planned(after, ro, w.Now))
		}
	}
	for _, t := range made {
		tasks = append(tasks, t)
	}
	slices.SortFunc(tasks, func(a, b *api.PlannedTask) int {
		return cmp.Or(cmp.Compare(len(a.Slot), len(b.Slot)), cmp.Compare(a.Slot, b.Slot))
	})
	return rollouts, tasks, nil
}

// note remembers where the newest task of a slot is put.
func note(v state.View, made map[string]*api.PlannedTask, d state.Delta) {
	after, ok := d.After.(*api.Task)
	if !ok {
		return
	}
	before, _ := d.Before.(*api.Task)
	t := made[after.SlotId]
	if before == nil {
		t = &api.PlannedTask{Slot: after.SlotId}
		for _, old := range v.TasksOf(after.ServiceId) {
			if old.SlotId == after.SlotId && old.Id != after.Id && !state.Ended(old.Status.GetState()) {
				t.Replaces = old.Id
			}
		}
		made[after.SlotId] = t
	}
	if t == nil {
		return
	}
	if n := v.Node(after.NodeId); n != nil {
		t.Node, t.Reason = n.Name, ""
	} else if after.Wait != nil {
		t.Reason = after.Wait.Reason
	}
}

// promote sends what the stack's rollouts wait for; it says whether one did.
func (w *World) promote(stack string) (sent bool) {
	v := w.State.View()
	for _, svc := range v.ServicesOf(stack) {
		r := v.Rollout(svc.RolloutId)
		if n := len(r.GetJournal()); r.GetOutcome() == "" && n > 0 {
			if op := r.Journal[n-1]; op.Kind == "wait_signal" && op.EndedAt == nil {
				sent = w.Signal(svc.Id, op.Text) == nil || sent
			}
		}
	}
	return sent
}

// planned is a rollout as a plan shows it: without times.
func planned(v state.View, r *api.Rollout, now time.Time) *api.PlannedRollout {
	p := &api.PlannedRollout{Service: r.ServiceId, Strategy: r.Policy.GetStrategy(), Outcome: r.Outcome, Reason: r.Reason}
	end := timestamppb.New(now)
	for _, op := range r.Journal {
		op = proto.CloneOf(op)
		op.BegunAt, op.EndedAt, op.Deadline, op.Nodes, op.Places = nil, nil, nil, nil, nil
		for _, s := range op.Samples {
			s.At = nil
		}
		p.Ops = append(p.Ops, op)
	}
	if r.EndedAt != nil {
		end = r.EndedAt
	}
	if len(r.Journal) > 0 {
		p.Takes = durationpb.New(end.AsTime().Sub(r.Journal[0].BegunAt.AsTime()))
	}
	switch {
	case r.Outcome != "":
	case len(r.Journal) == 0:
		p.Reason, _, _ = rollout.Waits(v, r, now)
	default:
		p.Reason = fmt.Sprintf("not through after %s and %d ops", end.AsTime().Sub(r.CreatedAt.AsTime()), len(r.Journal))
	}
	return p
}

package status

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"orch/engine/api"
	"orch/engine/rollout"
	"orch/engine/state"
)

// Rollout sums up a service's newest rollout, slot by slot. Without one it
// tells of the service alone.
func Rollout(v state.View, svc *api.Service, now time.Time) *api.RolloutStatus {
	out := &api.RolloutStatus{Service: svc.Id, Status: Service(v, svc, now)}
	out.Status.Rollout = nil // it stands beside
	if r := v.Rollout(svc.RolloutId); r != nil {
		out.Rollout = r
		out.WaitsFor, out.Since, out.Until = rollout.Waits(v, r, now)
		out.Signals = signals(r)
	}
	tasks := map[string][]*api.Task{}
	for _, t := range v.TasksOf(svc.Id) {
		tasks[t.SlotId] = append(tasks[t.SlotId], t)
	}
	slots := v.SlotsOf(svc.Id)
	slices.SortFunc(slots, func(a, b *api.Slot) int {
		return cmp.Or(cmp.Compare(len(a.Key), len(b.Key)), strings.Compare(a.Key, b.Key))
	})
	for _, slot := range slots {
		if !slot.Removed {
			out.Slots = append(out.Slots, slotStatus(v, out.Rollout, slot, tasks[slot.Id]))
		}
	}
	return out
}

// slotStatus tells of a slot by the task that serves, else its newest.
func slotStatus(v state.View, r *api.Rollout, slot *api.Slot, tasks []*api.Task) *api.SlotStatus {
	s := &api.SlotStatus{Id: slot.Id, Group: slot.Group, Version: slot.Version}
	var shown *api.Task
	for _, t := range tasks {
		better := shown == nil || t.Attempt > shown.Attempt
		if shown != nil && serving(t) != serving(shown) {
			better = serving(t)
		}
		if better {
			shown = t
		}
		if t.Version == slot.Version && !serving(t) && !state.Ended(t.Status.GetState()) {
			s.Reason = Reason(t)
		}
	}
	if shown == nil {
		return s
	}
	s.Task, s.Ready, s.Updated = shown.Id, serving(shown), r != nil && shown.Version == r.ToVersion
	s.State = strings.ToLower(strings.TrimPrefix(shown.Status.GetState().String(), "TASK_STATE_"))
	if n := v.Node(shown.NodeId); n != nil {
		s.Node = n.Name
	}
	if s.Reason == "" {
		s.Reason = Reason(shown)
	}
	return s
}

// signals are what an operator can do about a rollout now.
func signals(r *api.Rollout) []*api.Signal {
	var all []*api.Signal
	can := func(name, text string) { all = append(all, &api.Signal{Name: name, Text: text}) }
	if n := len(r.Journal); r.Outcome == "" && n > 0 && r.Journal[n-1].EndedAt == nil && r.Journal[n-1].Kind == "wait_signal" {
		can(r.Journal[n-1].Text, "what the strategy waits for")
	}
	halted := state.Halted(r)
	switch {
	case r.Outcome == "":
		can("pause", "stop it where it is")
	case halted:
		can("resume", "let it go on")
	}
	if halted || r.Outcome == "failed" {
		can("retry", "begin it from its top")
	}
	if (r.Outcome == "" || halted) && r.Phase == "forward" && r.From != nil && r.FromVersion != r.ToVersion {
		can("abort", fmt.Sprintf("take it back to version %s", r.FromVersion))
	}
	return all
}

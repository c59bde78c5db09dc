package simulate

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"orch/engine/api"
	"orch/engine/rollout"
	"orch/engine/spec"
	"orch/engine/state"
)

// Played is what came of a Play.
type Played struct {
	// Outcome of the release: succeeded, rolled_back, paused, failed; or
	// needs_operator; or under_way if it came to no end.
	Outcome, Reason string
	Took            time.Duration
	Events          []string // as Describe tells them
	Services        map[string]*ServicePlayed

	play  *Play
	world *World
	begun time.Time
	last  time.Time // of the newest entry
}

// ServicePlayed is what came of a service.
type ServicePlayed struct {
	// Outcome is that of its rollout: succeeded, rolled_back, paused, failed,
	// needs_operator or under_way; of a service that wasn't rolled unchanged,
	// changed (no task had to be replaced), created or removed; a job that
	// ran succeeded or failed, or was rolled_back with the release.
	Outcome, Reason string
	Ops             []PlayedOp
	Unavailable     int // slots without a serving task, at most
	Surge           int // tasks beside the slots, at most
	Tasks           []PlayedTask

	least, most int // replicas, of both releases
}

// PlayedOp is an op of a rollout, with short names of slots.
type PlayedOp struct {
	*api.Op
	At, Ended time.Duration // since the release began; Ended negative: it hasn't
	On        []string      // names of the nodes that its slots were on when the rollout began
}

// PlayedTask is a task that hasn't ended.
type PlayedTask struct {
	Slot, Node, State string
	Version           Version
	Serving           bool
}

func newPlayed(p *Play, w *World) *Played {
	out := &Played{play: p, world: w, begun: w.Now, last: w.Now, Services: map[string]*ServicePlayed{}}
	for _, s := range []*api.StackSpec{p.Before.Spec, p.After.Spec} {
		for _, svc := range s.Services {
			n := int(svc.Replicas)
			if have := out.Services[svc.Name]; have != nil {
				have.least, have.most = min(have.least, n), max(have.most, n)
			} else {
				out.Services[svc.Name] = &ServicePlayed{least: n, most: n}
			}
		}
	}
	for _, svc := range p.After.Spec.Services {
		if VersionOf(p.Before.Spec, svc.Name) == "" { // it can't miss what it never had
			out.Services[svc.Name].least = 0
		}
	}
	for _, svc := range p.Before.Spec.Services {
		if VersionOf(p.After.Spec, svc.Name) == "" {
			out.Services[svc.Name].least = 0
		}
	}
	return out
}

// note looks at one entry that was committed.
func (p *Played) note(v state.View, w *World, deltas []state.Delta) {
	p.last = w.Now
	touched := map[string]bool{}
	for _, d := range deltas {
		if text := w.Describe(d); text != "" {
			p.Events = append(p.Events, strings.Split(text, "\n")...)
		}
		for _, row := range []any{d.Before, d.After} {
			switch row := row.(type) {
			case *api.Task:
				touched[row.ServiceId] = true
			case *api.Slot:
				touched[row.ServiceId] = true
			}
		}
	}
	for id := range touched {
		_, name := spec.SplitServiceID(id)
		if s, svc := p.Services[name], v.Service(id); s != nil && svc != nil && svc.Spec.Mode != "job" {
			s.count(v, svc)
		}
	}
}

// count looks how many slots nobody serves, and how many tasks there are
// beside them.
func (s *ServicePlayed) count(v state.View, svc *api.Service) {
	regular := map[string]bool{} // whether somebody serves
	for _, slot := range v.SlotsOf(svc.Id) {
		if !slot.Removed && slot.Group == "" {
			regular[slot.Id] = false
		}
	}
	least, most, serve, live := s.least, s.most, 0, 0
	if svc.Spec.Mode == "global" {
		least, most = len(regular), len(regular)
	}
	for _, t := range v.TasksOf(svc.Id) {
		if v.Node(t.NodeId).GetStatus() != "up" {
			continue
		}
		if st := t.Status.GetState(); st >= api.TaskState_TASK_STATE_STARTING && !state.Ended(st) {
			live++
		}
		if served, ok := regular[t.SlotId]; ok && !served && serving(t) {
			regular[t.SlotId] = true
			serve++
		}
	}
	s.Unavailable, s.Surge = max(s.Unavailable, least-serve), max(s.Surge, live-most)
}

// serving says that clients can be sent to a task.
func serving(t *api.Task) bool {
	return t.Status.GetState() == api.TaskState_TASK_STATE_RUNNING && t.Status.Ready && t.Desired == api.TaskDesired_TASK_DESIRED_RUN
}

// end sums up.
func (p *Played) end(number uint64) *Played {
	v := p.world.State.View()
	rel := v.Release(p.play.After.Spec.Name, number)
	p.Outcome, p.Reason = rel.GetOutcome(), rel.GetReason()
	p.Took = p.last.Sub(p.begun)
	if rel.GetEndedAt() != nil {
		p.Took = rel.EndedAt.AsTime().Sub(p.begun)
	}
	for name, s := range p.Services {
		svc := v.Service(spec.ServiceID(rel.GetStack(), name))
		ro := v.Rollout(svc.GetRolloutId())
		if ro.GetRelease() != number {
			ro = nil
		}
		s.judge(v, rel, ro, name, p.world.Now)
		for _, op := range ro.GetJournal() {
			s.Ops = append(s.Ops, p.op(v, ro.Journal[0].Places, op))
		}
		if svc != nil {
			s.Tasks = p.tasks(v, svc)
		}
		if p.Outcome == "" && (s.Outcome == "paused" || s.Outcome == "needs_operator") {
			p.Outcome, p.Reason = s.Outcome, name+": "+s.Reason
		}
	}
	if p.Outcome == "" {
		p.Outcome, p.Reason = "under_way", p.world.why(rel)
	}
	return p
}

// judge says what came of a service whose rollout is ro, if it has one.
func (s *ServicePlayed) judge(v state.View, rel *api.Release, ro *api.Rollout, name string, now time.Time) {
	step := state.Step(rel, name)
	s.Reason = step.GetReason()
	switch {
	case step == nil:
		s.Outcome = "unchanged"
	case step.Action == "rollout" && ro != nil && len(ro.Journal) == 0:
		s.Outcome, s.Reason = "unchanged", cmp.Or(ro.Reason, "its turn didn't come"+rollout.Before(rel, name))
	case step.Action == "rollout" && ro != nil:
		s.Outcome, s.Reason = ro.Outcome, ro.Reason
		if s.Outcome == "" {
			s.Outcome = "under_way"
			s.Reason, _, _ = rollout.Waits(v, ro, now)
		}
	case step.State == "done":
		s.Outcome = map[string]string{"create": "created", "remove": "removed", "change": "changed", "rollout": "unchanged", "run": "succeeded"}[step.Action]
	case step.State == "restored":
		s.Outcome, s.Reason = "rolled_back", cmp.Or(s.Reason, rel.Reason)
	case step.State == "failed":
		s.Outcome = "failed"
	default:
		s.Outcome = "under_way"
	}
}

func (p *Played) op(v state.View, places map[string]string, op *api.Op) PlayedOp {
	op = proto.CloneOf(op)
	var nodes []string
	for _, slot := range op.Slots {
		if n := v.Node(places[slot]); n != nil && !slices.Contains(nodes, n.Name) {
			nodes = append(nodes, n.Name)
		}
	}
	for _, ids := range [][]string{op.Slots, op.Failed, op.Removed} {
		for i := range ids {
			ids[i] = short(ids[i])
		}
	}
	out := PlayedOp{Op: op, On: nodes, At: op.BegunAt.AsTime().Sub(p.begun), Ended: -1}
	if op.EndedAt != nil {
		out.Ended = op.EndedAt.AsTime().Sub(p.begun)
	}
	return out
}

func (p *Played) tasks(v state.View, svc *api.Service) []PlayedTask {
	var all []PlayedTask
	for _, t := range v.TasksOf(svc.Id) {
		if st := t.Status.GetState(); !state.Ended(st) {
			all = append(all, PlayedTask{Slot: short(t.SlotId), Node: v.Node(t.NodeId).GetName(), State: StateName(st), Version: p.play.version(t),
				Serving: serving(t) && v.Node(t.NodeId).GetStatus() == "up"})
		}
	}
	slices.SortFunc(all, func(a, b PlayedTask) int {
		return cmp.Or(cmp.Compare(len(a.Slot), len(b.Slot)), cmp.Compare(a.Slot, b.Slot), cmp.Compare(a.Version, b.Version))
	})
	return all
}

// short is a slot's or service's name without its stack's.
func short(id string) string {
	_, name, ok := strings.Cut(id, "/")
	if !ok {
		return id
	}
	return name
}

// Ending is what it came to, without times and places, as the killing of a
// leader must not change it.
func (p *Played) Ending() string {
	var out strings.Builder
	fmt.Fprintf(&out, "release %s %s\n", p.Outcome, p.Reason)
	for _, name := range sortedKeys(p.Services) {
		s := p.Services[name]
		fmt.Fprintf(&out, "%s %s %s\n", name, s.Outcome, s.Reason)
		for _, op := range s.Ops {
			fmt.Fprintf(&out, "  %s: ok %t %s\n", rollout.Text(op.Op), op.Ok, op.Reason)
		}
		for _, t := range s.Tasks {
			fmt.Fprintf(&out, "  %s %s %s\n", t.Slot, t.Version, t.State)
		}
	}
	return out.String()
}

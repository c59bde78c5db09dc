package rollout

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"orch/engine/api"
	"orch/engine/spec"
	"orch/engine/state"
)

// Waits says what a rollout waits for, since when, and until when at most
// (nil: for ever); "" if it is over.
func Waits(v state.View, r *api.Rollout, now time.Time) (what string, since, until *timestamppb.Timestamp) {
	svc := v.Service(r.ServiceId)
	if r.Outcome != "" || svc == nil {
		return "", nil, nil
	}
	stack, name := spec.SplitServiceID(r.ServiceId)
	if held(v, r) {
		rel := v.Release(stack, r.Release)
		return "waits for its turn in release " + fmt.Sprint(rel.GetNumber()) + Before(rel, name), r.CreatedAt, nil
	}
	if len(r.Journal) == 0 {
		return "begins", r.CreatedAt, nil
	}
	op := r.Journal[len(r.Journal)-1]
	since, until = op.BegunAt, op.Deadline
	s := &step{view: v, r: r, svc: svc, now: now, out: &api.RolloutAdvance{}}
	s.load()
	switch {
	case op.EndedAt != nil:
		what, since, until = "asks its strategy what comes next", op.EndedAt, nil
		if r.Phase == "rollback" {
			what = "is taken back"
		}
	case op.Kind == "begin":
		what = "waits until its slots are there"
	case op.Kind == "surge":
		what = "waits until tasks that go make room for " + op.Group
	case op.Kind == "pause":
		what = fmt.Sprintf("pauses for %s", op.Deadline.AsTime().Sub(now).Round(time.Second))
	case op.Kind == "wait_healthy":
		what = "waits until " + names(op.Slots) + " healthy"
		if d := op.Duration.AsDuration(); d > 0 {
			what += fmt.Sprintf(" for %s", d)
		}
		failed, waiting := s.examine(op, func(time.Time) {})
		for _, all := range []map[string]string{failed, waiting} {
			for slot, why := range all {
				if why == "isn't healthy for long enough" {
					delete(all, slot)
				}
			}
			if len(all) > 0 {
				what += ": " + first(all)
				break
			}
		}
	case op.Kind == "wait_signal":
		what = fmt.Sprintf("waits for an operator: orch rollout %s %s", op.Text, r.ServiceId)
	case op.Kind == "check":
		what = "waits for " + ProbeText(op.Probe)
	case op.Kind == "analyze":
		what = fmt.Sprintf("watches %s: %d of %d samples", ProbeText(op.Probe), len(op.Samples), op.Count)
	case op.Kind == "run":
		what = fmt.Sprintf("waits until job %q is done", op.Text)
	default:
		what = Text(op)
	}
	if until == nil && r.Deadline != nil {
		until = r.Deadline
	}
	if r.Phase == "rollback" && r.Reason != "" {
		what += ", after: " + r.Reason
	}
	return what, since, until
}

// first is one of the reasons, and how many more there are.
func first(why map[string]string) string {
	slots := slices.SortedFunc(maps.Keys(why), func(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b)) })
	text := Short(slots[0]) + " " + why[slots[0]]
	if n := len(slots) - 1; n > 0 {
		text += fmt.Sprintf(" (and %d more)", n)
	}
	return text
}

// Before says which services have to be through first.
func Before(rel *api.Release, service string) string {
	var open []string
	for _, on := range state.Step(rel, service).GetAfter() {
		if s := state.Step(rel, on); s != nil && s.State != "done" {
			open = append(open, on)
		}
	}
	if len(open) == 0 {
		return ""
	}
	return ": after " + strings.Join(open, ", ")
}

func names(slots []string) string {
	switch len(slots) {
	case 1:
		return Short(slots[0]) + " is"
	case 2:
		return Short(slots[0]) + " and " + Short(slots[1]) + " are"
	}
	return fmt.Sprintf("%d slots are", len(slots))
}

package builtins

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"orch/engine/api"
)

// sameAsk says whether two ops ask for the same. Which slots a group has is
// the engine's answer, not the question.
func sameAsk(a, b *api.Op) bool {
	return a.Kind == b.Kind && a.Order == b.Order && a.Group == b.Group && a.Count == b.Count && a.MaxFailed == b.MaxFailed &&
		a.FailLimit == b.FailLimit && a.Text == b.Text && a.Policy == b.Policy &&
		sameDuration(a.Duration, b.Duration) && sameDuration(a.Interval, b.Interval) &&
		(a.Timeout == nil) == (b.Timeout == nil) && sameDuration(a.Timeout, b.Timeout) &&
		(!namesSlots(a) || sameSlots(a.Slots, b.Slots)) && sameProbe(a.Probe, b.Probe)
}

func namesSlots(op *api.Op) bool {
	return op.Group == "" && (op.Kind == "replace" || op.Kind == "wait_healthy")
}

func sameDuration(a, b *durationpb.Duration) bool { return a.AsDuration() == b.AsDuration() }

func sameSlots(a, b []string) bool {
	return slices.Equal(a, b) || slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

func sameProbe(a, b *api.Probe) bool {
	return (a == nil) == (b == nil) && (a == nil || proto.Equal(plainProbe(a), plainProbe(b)))
}

func plainProbe(p *api.Probe) *api.Probe {
	p = proto.CloneOf(p)
	p.Origin = ""
	return p
}

// OpText is an op as a strategy would write it, without "r.".
func OpText(op *api.Op) string {
	var args []string
	quoted := func(s string) { args = append(args, strconv.Quote(s)) }
	named := func(name, value string) { args = append(args, name+" = "+value) }
	switch {
	case op.Group != "":
		quoted(op.Group)
	case namesSlots(op):
		names := make([]string, len(op.Slots))
		for i, id := range op.Slots {
			names[i] = strconv.Quote(short(id))
		}
		args = append(args, "["+strings.Join(names, ", ")+"]")
	}
	switch op.Kind {
	case "replace":
		named("order", strconv.Quote(op.Order))
	case "surge":
		args = append(args, fmt.Sprint(op.Count))
	case "wait_healthy":
		if op.Duration.AsDuration() != 0 {
			named("min_healthy", durationLiteral(op.Duration))
		}
		if op.MaxFailed != 0 {
			named("max_failed", fmt.Sprint(op.MaxFailed))
		}
	case "pause":
		args = append(args, durationLiteral(op.Duration))
	case "check":
		args = append(args, probeText(op.Probe))
	case "analyze":
		args = append(args, probeText(op.Probe))
		named("interval", durationLiteral(op.Interval))
		named("count", fmt.Sprint(op.Count))
		if op.FailLimit != 0 {
			named("fail_limit", fmt.Sprint(op.FailLimit))
		}
	case "wait_signal", "run", "event":
		quoted(op.Text)
	case "fail":
		quoted(op.Policy)
		if op.Text != "" {
			quoted(op.Text)
		}
	}
	if op.Timeout != nil {
		named("timeout", durationLiteral(op.Timeout))
	}
	return op.Kind + "(" + strings.Join(args, ", ") + ")"
}

func durationLiteral(d *durationpb.Duration) string { return strconv.Quote(DurationText(d)) }

func probeText(p *api.Probe) string {
	var args []string
	for _, text := range []string{p.GetUrl(), p.GetDb(), p.GetQuery()} {
		if text != "" {
			args = append(args, strconv.Quote(text))
		}
	}
	if len(p.GetCommand()) > 0 {
		args = append(args, fmt.Sprintf("%q", p.Command))
	}
	if p.GetStatus() != 0 && p.Status != 200 {
		args = append(args, fmt.Sprintf("status = %d", p.Status))
	}
	if p != nil && p.Below != nil {
		args = append(args, fmt.Sprintf("below = %v", *p.Below))
	}
	if p != nil && p.Above != nil {
		args = append(args, fmt.Sprintf("above = %v", *p.Above))
	}
	return "probe." + p.GetType() + "(" + strings.Join(args, ", ") + ")"
}

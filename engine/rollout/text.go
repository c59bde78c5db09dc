package rollout

import (
	"cmp"
	"fmt"
	"strings"

	"orch/engine/api"
	"orch/engine/spec"
)

// Text is an op in a few words: "replace web.1 web.2, start-first".
func Text(op *api.Op) string {
	var out strings.Builder
	out.WriteString(op.Kind)
	words := func(more ...string) {
		for _, w := range more {
			if w != "" {
				out.WriteString(" " + w)
			}
		}
	}
	switch op.Kind {
	case "begin":
		words(op.Text)
		return out.String()
	case "surge":
		words(op.Group, fmt.Sprint(op.Count))
		return out.String()
	case "traffic":
		words(fmt.Sprintf("%d%% to the new version", op.Count))
		return out.String()
	case "adopt", "drop":
		words(op.Group)
		return out.String()
	case "wait_healthy":
		if op.Group != "" {
			words(op.Group)
		} else {
			words(shorts(op.Slots)...)
		}
		if d := op.Duration.AsDuration(); d > 0 {
			words("for", d.String())
		}
		if op.Timeout != nil {
			words("within", op.Timeout.AsDuration().String())
		}
		return out.String()
	case "pause":
		words(op.Duration.AsDuration().String())
	case "check", "analyze":
		words(ProbeText(op.Probe))
		if op.Kind == "analyze" {
			words(fmt.Sprintf("%d times, %s apart", op.Count, op.Interval.AsDuration()))
		}
	case "fail":
		words(op.Policy)
		if op.Reason != "" {
			out.WriteString(": " + op.Reason)
		}
		return out.String()
	default:
		words(shorts(op.Slots)...)
		if op.Order != "" {
			out.WriteString(", " + op.Order)
		}
		words(op.Text)
	}
	return out.String()
}

// Short is a slot's id without its stack: "web.1".
func Short(id string) string {
	stack, name := spec.SplitServiceID(id)
	return cmp.Or(name, stack)
}

func shorts(ids []string) []string {
	all := make([]string, len(ids))
	for i, id := range ids {
		all[i] = Short(id)
	}
	return all
}

// ProbeText is a probe in a few words.
func ProbeText(p *api.Probe) string {
	bound := ""
	if p != nil && p.Below != nil {
		bound += fmt.Sprintf(" < %g", p.GetBelow())
	}
	if p != nil && p.Above != nil {
		bound += fmt.Sprintf(" > %g", p.GetAbove())
	}
	switch p.GetType() {
	case "http":
		return p.Url
	case "metric", "influx":
		return p.Query + bound
	}
	return strings.Join(p.GetCommand(), " ")
}

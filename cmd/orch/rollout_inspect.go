package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"orch/engine/api"
	"orch/engine/rollout"
)

func rolloutInspect() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "inspect STACK/SERVICE", Short: "Show a service's newest rollout: policy, every op and what came of it", Args: service,
		RunE: asking(func(cmd *cobra.Command, client clusterClient, args []string) error {
			s, err := rolloutOf(cmd, client, args[0])
			if err != nil {
				return err
			}
			if output == "json" {
				return printMessages(cmd, []*api.RolloutStatus{s})
			}
			return inspectRollout(cmd.OutOrStdout(), s)
		}),
	}
	outputFlag(cmd, &output)
	return cmd
}

// rolloutOf asks once for a service's newest rollout.
func rolloutOf(cmd *cobra.Command, client clusterClient, service string) (*api.RolloutStatus, error) {
	stream, err := client.WatchRollout(cmd.Context(), connect.NewRequest(&api.WatchRolloutRequest{Service: service}))
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	if !stream.Receive() {
		return nil, stream.Err()
	}
	if stream.Msg().Rollout == nil {
		return nil, &exitError{1, fmt.Sprintf("orch: service %q has had no rollout yet: it runs the version that it began with", service)}
	}
	return stream.Msg(), nil
}

func inspectRollout(out io.Writer, s *api.RolloutStatus) error {
	r, p := s.Rollout, s.Rollout.Policy
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	say := func(what, format string, args ...any) { fmt.Fprintf(w, "%s\t%s\n", what, fmt.Sprintf(format, args...)) }
	say("rollout", "%s, release %d", r.Id, r.Release)
	say("versions", "%s -> %s", cmp.Or(r.FromVersion, "(nothing)"), r.ToVersion)
	say("outcome", "%s", strings.TrimSuffix(outcome(r)+": "+r.Reason, ": "))
	say("began", "%s (%s ago)", clock(r.CreatedAt), ago(r.CreatedAt))
	say("strategy", "%s", cmp.Or(p.GetStrategy(), rollout.Library))
	if p.GetParamsJson() != "" {
		say("params", "%s", p.ParamsJson)
	} else {
		say("params", "parallelism %s, delay %s, order %s, monitor %s, max_failure_ratio %g, on_failure %s", cmp.Or(p.GetParallelism(), "1"),
			p.GetDelay().AsDuration(), p.GetOrder(), p.GetMonitor().AsDuration(), p.GetMaxFailureRatio(), p.GetOnFailure())
	}
	say("bounds", "min_available %s, max_surge %s, deadline %s", cmp.Or(p.GetMinAvailable(), "all but a batch"), cmp.Or(p.GetMaxSurge(), "100%"), cmp.Or(clock(r.Deadline), "none now"))
	if len(p.GetBefore())+len(p.GetAfter()) > 0 {
		say("jobs", "before: %s; after: %s", cmp.Or(strings.Join(p.Before, ", "), "none"), cmp.Or(strings.Join(p.After, ", "), "none"))
	}
	say("slots", "%s", slotsText(s))
	if err := w.Flush(); err != nil {
		return err
	}
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\nOP\t\tWHAT\tAT\tTOOK\tRESULT\tASKED FOR BY")
	for _, op := range r.Journal {
		by := op.Origin
		if op.Engine {
			by = "the engine"
		}
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%s\t%s\n", op.Seq, opMark(op), opText(op), op.BegunAt.AsTime().Local().Format("15:04:05.000"), took(op), result(op), by)
		for i, x := range op.Samples {
			fmt.Fprintf(t, "\t\t  sample %d: %s\t\t\t%s\t\n", i+1, map[bool]string{true: "good", false: "bad"}[x.Ok], x.Reason)
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, line := range waitLines(s) {
		fmt.Fprintln(out, line)
	}
	return nil
}

// opText is an op in a line that isn't endless.
func opText(op *api.Op) string {
	text := rollout.Text(op)
	if op.Kind == "fail" {
		text = strings.TrimSuffix("fail "+op.Policy, " ")
	}
	const most = 72
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	return text
}

func opMark(op *api.Op) string {
	switch {
	case op.EndedAt == nil:
		return "…"
	case op.Ok && op.Kind != "fail":
		return "✓"
	}
	return "✗"
}

func took(op *api.Op) string {
	end := time.Now()
	if op.EndedAt != nil {
		end = op.EndedAt.AsTime()
	}
	d := end.Sub(op.BegunAt.AsTime())
	switch {
	case d < time.Millisecond:
		return ""
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

func result(op *api.Op) string {
	switch {
	case op.By != "":
		return "by " + op.By
	case op.Kind == "begin":
		return ""
	}
	return op.Reason
}

// slotsText counts slots by how far they are.
func slotsText(s *api.RolloutStatus) string {
	n := map[string]int{}
	groups := map[string]int{}
	for _, x := range s.Slots {
		switch {
		case x.Group != "":
			groups[x.Group]++
		case x.Updated && x.Ready:
			n["new"]++
		case x.Updated:
			n["new, not ready"]++
		case x.Ready:
			n["old"]++
		default:
			n["not ready"]++
		}
	}
	var parts []string
	for _, k := range []string{"new", "new, not ready", "old", "not ready"} {
		if n[k] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n[k], k))
		}
	}
	for _, g := range sortedNames(groups) {
		parts = append(parts, fmt.Sprintf("%d beside (%s)", groups[g], g))
	}
	return strings.Join(parts, ", ")
}

// waitLines say what a rollout waits for, and what can be done about it.
func waitLines(s *api.RolloutStatus) []string {
	var lines []string
	if s.WaitsFor != "" {
		line := "It " + s.WaitsFor
		if s.Since != nil {
			line += ", for " + ago(s.Since)
		}
		if s.Until != nil {
			line += ", until " + clock(s.Until) + " at most"
		}
		lines = append(lines, line+".")
	}
	for _, x := range s.Signals {
		line := fmt.Sprintf("  orch rollout %s %s", x.Name, s.Service)
		if !known[x.Name] {
			line = fmt.Sprintf("  orch rollout signal %s %s", s.Service, x.Name)
		}
		lines = append(lines, fmt.Sprintf("%-44s %s", line, x.Text))
	}
	return lines
}

// known signals have commands of their own.
var known = map[string]bool{"promote": true, "pause": true, "resume": true, "abort": true, "retry": true}

package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"orch/engine/api"
	"orch/engine/rollout"
)

var marks = map[string]string{"create": "+", "update": "~", "delete": "-"}

var effects = map[string]string{
	"start": "tasks start", "stop": "tasks stop", "rollout": "tasks are replaced", "in-place": "no task restarts", "none": "",
}

func printPlan(out io.Writer, p *api.Plan) {
	if len(p.Changes) == 0 {
		fmt.Fprintf(out, "Stack %s: no changes to release %d.\n", p.Stack, p.BaseRelease)
		return
	}
	fmt.Fprintf(out, "Stack %s, release %d -> %d:\n", p.Stack, p.BaseRelease, p.BaseRelease+1)
	count := map[string]int{}
	for _, c := range p.Changes {
		count[c.Action]++
		line := fmt.Sprintf("%s %s %s", marks[c.Action], c.Kind, c.Name)
		if e := effects[c.Effect]; e != "" {
			line += " (" + e + ")"
		}
		fmt.Fprintln(out, line+at(c.Origin))
		for _, f := range c.Fields {
			where := ""
			if f.Origin != c.Origin {
				where = at(f.Origin)
			}
			fmt.Fprintf(out, "    %s: %s -> %s%s\n", f.Path, orNone(f.Old), orNone(f.New), where)
		}
	}
	fmt.Fprintf(out, "%d to create, %d to update, %d to delete.\n", count["create"], count["update"], count["delete"])
	for _, r := range p.Rollouts {
		printRollout(out, r)
	}
	printPlaces(out, p.Tasks)
}

// mostLines are shown of a rollout; in between some are left out.
const mostLines = 60

// printRollout shows what a strategy would do, an op a line; what is waited
// for stands beside what it is waited for after.
func printRollout(out io.Writer, r *api.PlannedRollout) {
	by := fmt.Sprintf("\n%s by %s", r.Service, cmp.Or(r.Strategy, rollout.Library))
	if len(r.Ops) == 0 {
		fmt.Fprintf(out, "%s would not begin: it %s\n", by, cmp.Or(r.Reason, "waits"))
		return
	}
	fmt.Fprintf(out, "%s, if all goes well (at least %s):\n", by, r.Takes.AsDuration())
	var lines []string
	for _, op := range r.Ops {
		text := opText(op)
		switch {
		case op.Kind == "begin", op.Kind == "succeed" && r.Outcome == "succeeded":
			continue
		case op.Kind == "wait_healthy" && len(lines) > 0:
			if d := op.Duration.AsDuration(); d > 0 {
				lines[len(lines)-1] += fmt.Sprintf(", healthy for %s", d)
			}
			continue
		case !op.Ok && op.Reason != "" && op.Kind != "fail":
			text += ": refused: " + op.Reason
		}
		lines = append(lines, text)
	}
	for i, line := range lines {
		if hidden := len(lines) - mostLines; hidden > 0 && i >= mostLines-5 && i < len(lines)-5 {
			if i == mostLines-5 {
				fmt.Fprintf(out, "      … %d more …\n", hidden)
			}
			continue
		}
		fmt.Fprintf(out, "  %2d. %s\n", i+1, line)
	}
	if r.Outcome != "succeeded" {
		fmt.Fprintf(out, "  and then it is %s\n", strings.TrimPrefix(strings.TrimSuffix(r.Outcome+": "+r.Reason, ": "), ": "))
	}
}

// printPlaces tells where new tasks would land, node by node, and which fit
// nowhere.
func printPlaces(out io.Writer, tasks []*api.PlannedTask) {
	if len(tasks) == 0 {
		return
	}
	var nodes []string
	on := map[string][]string{}
	for _, t := range tasks {
		if t.Node == "" {
			continue
		}
		if on[t.Node] == nil {
			nodes = append(nodes, t.Node)
		}
		on[t.Node] = append(on[t.Node], rollout.Short(t.Slot))
	}
	fmt.Fprintln(out, "\nNew tasks, as the nodes are now:")
	for _, n := range nodes {
		fmt.Fprintf(out, "  on %s: %s\n", n, strings.Join(on[n], " "))
	}
	for _, t := range tasks {
		if t.Node == "" {
			fmt.Fprintf(out, "  nowhere yet: %s: %s\n", rollout.Short(t.Slot), cmp.Or(t.Reason, "it isn't known why"))
		}
	}
}

func at(origin string) string {
	if origin == "" {
		return ""
	}
	return "  [" + origin + "]"
}

func orNone(text string) string {
	if text == "" {
		return "(none)"
	}
	return text
}

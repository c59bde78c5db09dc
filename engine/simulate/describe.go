package simulate

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"orch/engine/api"
	"orch/engine/rollout"
	"orch/engine/state"
	"orch/engine/status"
)

// Describe says what an operator would see of one row's change; "": nothing.
func (w *World) Describe(d state.Delta) string {
	v := w.State.View()
	switch after := d.After.(type) {
	case *api.Task:
		before, _ := d.Before.(*api.Task)
		return task(v, before, after)
	case *api.Rollout:
		before, _ := d.Before.(*api.Rollout)
		return rolloutText(v, before, after)
	case *api.Release:
		before, _ := d.Before.(*api.Release)
		return releaseText(before, after)
	case *api.Service:
		before, _ := d.Before.(*api.Service)
		switch {
		case after.Run != nil && before.GetRun().GetNumber() != after.Run.Number:
			return fmt.Sprintf("%s: run %d begins", after.Id, after.Run.Number)
		case after.Run.GetOutcome() != before.GetRun().GetOutcome():
			return strings.TrimSuffix(fmt.Sprintf("%s: run %d %s: %s", after.Id, after.Run.Number, after.Run.Outcome, after.Run.Reason), ": ")
		}
	case nil:
		switch gone := d.Before.(type) {
		case *api.Service:
			return gone.Id + ": gone"
		case *api.Stack:
			return "stack " + gone.Name + ": gone"
		}
	}
	return ""
}

func task(v state.View, before, after *api.Task) string {
	was, is := before.GetStatus().GetState(), after.Status.GetState()
	text := ""
	switch {
	case before == nil || before.NodeId != after.NodeId:
		text = "+ " + after.Id + " " + Image(v, after)
		if after.NodeId != "" {
			text += " on " + v.Node(after.NodeId).GetName()
		}
		if after.Failures > 0 {
			text += fmt.Sprintf(" (failures %d)", after.Failures)
		}
	case was != is && state.Ended(is):
		text = "- " + after.Id + " " + StateName(is)
		if after.Status.Message != "" {
			text += ": " + after.Status.Message
		} else if after.StopReason != "" {
			text += ": " + after.StopReason
		}
	case before.Desired != after.Desired:
		text = "  " + after.Id + " stops: " + after.StopReason
	case !before.Drained && after.Drained:
		text = "  " + after.Id + " has drained"
	case !before.Status.GetReady() && after.Status.GetReady():
		text = "  " + after.Id + " ready"
	case before.Status.GetReady() && !after.Status.GetReady() && is == api.TaskState_TASK_STATE_RUNNING:
		text = "  " + after.Id + " unready: " + after.Status.Message
	}
	if w := after.Wait; w != nil && w.Reason != before.GetWait().GetReason() {
		if text == "" {
			text = "? " + after.Id
		}
		text += ": " + w.Reason
	}
	return text
}

// Image is what a task runs.
func Image(v state.View, t *api.Task) string {
	return v.Version(t.ServiceId, t.Version).GetTask().GetImage()
}

func rolloutText(v state.View, before, after *api.Rollout) string {
	name := func(hash string) string { return v.Version(after.ServiceId, hash).GetTask().GetImage() }
	text := ""
	if before == nil {
		return fmt.Sprintf("~ %s: %s -> %s", after.Id, name(after.FromVersion), name(after.ToVersion))
	}
	if n := len(before.Journal); n > 0 && n <= len(after.Journal) {
		switch was, is := before.Journal[n-1], after.Journal[n-1]; {
		case was.EndedAt == nil && is.EndedAt != nil && (!is.Ok || len(is.Failed) > 0):
			text = fmt.Sprintf("~ %s: %s failed: %s\n", after.Id, is.Kind, is.Reason)
		case len(is.Samples) > len(was.Samples):
			text = fmt.Sprintf("~ %s: sample %d: %s\n", after.Id, len(is.Samples), is.Samples[len(is.Samples)-1].Reason)
		case was.EndedAt == nil && is.By != "":
			text = fmt.Sprintf("~ %s: %s by %s\n", after.Id, is.Text, is.By)
		}
	}
	if len(after.Journal) > len(before.Journal) {
		op := after.Journal[len(after.Journal)-1]
		text += fmt.Sprintf("~ %s: %s", after.Id, rollout.Text(op))
		if op.EndedAt != nil && !op.Ok {
			text += ": refused: " + op.Reason
		}
		text += "\n"
	}
	if before.Phase != after.Phase && after.Phase == "rollback" {
		text += fmt.Sprintf("~ %s: rolls back: %s\n", after.Id, after.Reason)
	}
	if before.Outcome != after.Outcome {
		text += strings.TrimSuffix(fmt.Sprintf("~ %s: %s: %s", after.Id, cmp.Or(after.Outcome, "goes on"), after.Reason), ": ")
	}
	return strings.TrimSuffix(text, "\n")
}

// StateName is a task's state in lower case.
func StateName(s api.TaskState) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "TASK_STATE_"))
}

// Show lists the tasks that haven't ended, and each service's status.
func (w *World) Show() string {
	v := w.State.View()
	var out strings.Builder
	for _, svc := range v.Services() {
		s := status.Service(v, svc, w.Now)
		fmt.Fprintf(&out, "%s %s %d/%d", svc.Id, s.State, s.Ready, s.Want)
		if s.Reason != "" {
			fmt.Fprintf(&out, ": %s", s.Reason)
		}
		out.WriteString("\n")
		tasks := v.TasksOf(svc.Id)
		slices.SortFunc(tasks, func(a, b *api.Task) int {
			return cmp.Or(cmp.Compare(len(a.SlotId), len(b.SlotId)), cmp.Compare(a.SlotId, b.SlotId), cmp.Compare(a.Attempt, b.Attempt))
		})
		for _, t := range tasks {
			if state.Ended(t.Status.GetState()) {
				continue
			}
			fmt.Fprintf(&out, "  %s %s %s", t.Id, Image(v, t), StateName(t.Status.GetState()))
			if t.NodeId != "" {
				fmt.Fprintf(&out, " on %s", cmp.Or(v.Node(t.NodeId).GetName(), t.NodeId))
			}
			if t.Status.GetState() == api.TaskState_TASK_STATE_RUNNING && !t.Status.Ready {
				out.WriteString(" (not ready)")
			}
			if t.Wait != nil {
				fmt.Fprintf(&out, ": %s, since %s", t.Wait.Reason, w.clock(t.Wait.Since.AsTime()))
				if t.Wait.Deadline != nil {
					fmt.Fprintf(&out, ", until %s", w.clock(t.Wait.Deadline.AsTime()))
				}
			}
			out.WriteString("\n")
		}
	}
	return out.String()
}

// Really lists what runs on each node, whatever the engine believes.
func (w *World) Really() string {
	var out strings.Builder
	for _, id := range sortedKeys(w.agents) {
		fmt.Fprintf(&out, "%s:", cmp.Or(w.State.View().Node(id).GetName(), id))
		for _, task := range sortedKeys(w.agents[id].local) {
			if st := w.agents[id].local[task].State; st >= api.TaskState_TASK_STATE_STARTING && !state.Ended(st) {
				out.WriteString(" " + task)
			}
		}
		out.WriteString("\n")
	}
	return out.String()
}

func (w *World) clock(t time.Time) string { return t.UTC().Format("15:04:05") }

// releaseText tells of a release of more than one service.
func releaseText(before, after *api.Release) string {
	if before == nil || len(after.Steps) < 2 {
		return ""
	}
	var lines []string
	say := func(format string, args ...any) {
		lines = append(lines, strings.TrimSuffix(fmt.Sprintf("= release %d: ", after.Number)+fmt.Sprintf(format, args...), ": "))
	}
	if before.Phase == "queued" && after.Phase == "forward" {
		say("begins")
	}
	if before.Phase != after.Phase && after.Phase == "rollback" {
		say("goes back: %s", after.Reason)
	}
	for _, s := range after.Steps {
		if was := state.Step(before, s.Service); was.GetState() != s.State && s.Action != "change" {
			say("%s %s: %s", s.Service, s.State, s.Reason)
		}
	}
	if before.Outcome != after.Outcome {
		say("%s: %s", after.Outcome, after.Reason)
	}
	return strings.Join(lines, "\n")
}

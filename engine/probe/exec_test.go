package probe_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"orch/engine/api"
	"orch/engine/probe"
	"orch/engine/rollout"
)

func TestExec(t *testing.T) {
	type result struct {
		exit   int32
		output string
		err    string
	}
	for _, c := range []struct {
		name   string
		tasks  map[string]result // those that may be asked
		of     string
		ok     bool
		reason string
	}{
		{"well", map[string]result{"a": {0, "one\nall well\n", ""}}, "a b", true, "check --all in task a: exit code 0: all well"},
		{"silent", map[string]result{"a": {}}, "a b", true, "check --all in task a: exit code 0"},
		{"bad: nobody else is asked", map[string]result{"a": {3, "one\nno\xff", ""}}, "a b", false, "check --all in task a: exit code 3: no?"},
		{"the second answers", map[string]result{"a": {err: "it is not running"}, "b": {output: "yes"}}, "a b c", true, "check --all in task b: exit code 0: yes"},
		{"the second is bad", map[string]result{"a": {err: "it is not running"}, "b": {exit: 1}}, "a b c", false, "check --all in task b: exit code 1"},
		{"none answers", map[string]result{"a": {err: "node n1 is not connected"}, "b": {err: "it is not running"}}, "a b", false, "check --all in task a: node n1 is not connected (none of 2 tasks could run it)"},
		{"the only one does not", map[string]result{"a": {output: "x\nso far", err: "it was killed"}}, "a", false, "check --all in task a: it was killed: so far"},
		{"long output", map[string]result{"a": {output: strings.Repeat("x", 5000)}}, "a", true, "check --all in task a: exit code 0: " + strings.Repeat("x", 197) + "..."},
		{"no tasks", nil, "", false, "check --all: no task of the new version is ready to run it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := &probe.Asker{Exec: func(ctx context.Context, task string, command []string) (int32, string, error) {
				r, may := c.tasks[task]
				if _, bounded := ctx.Deadline(); !may || !bounded || !slices.Equal(command, []string{"check", "--all"}) {
					t.Errorf("asked %q for %q, bounded %v", task, command, bounded)
				}
				if r.err != "" {
					return -1, r.output, errors.New(r.err)
				}
				return r.exit, r.output, nil
			}}
			p := &api.Probe{Type: "exec", Command: []string{"check", "--all"}}
			check(t, a.Ask(t.Context(), rollout.ProbeOf{Probe: p, Tasks: strings.Fields(c.of)}), "", c.ok, c.reason)
		})
	}
	ask(t, &probe.Asker{Exec: hang}, "", &api.Probe{Type: "exec"}, false, "it has no command")
	ask(t, &probe.Asker{}, "", &api.Probe{Type: "exec", Command: []string{"x"}}, false, "commands cannot be run in tasks here")
}

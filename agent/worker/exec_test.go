package worker_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"orch/engine/api"
)

func TestExec(t *testing.T) {
	bubble(t, func(r *rig) {
		r.assign(true, as("a"), as("strange", func(a *api.Assignment) { a.Spec.Runtime = "vm" }))
		for _, c := range []struct {
			id     string
			argv   []string
			exit   int
			output string
			err    string
		}{
			{"a", []string{"echo", "hello"}, 0, "hello", ""},
			{"a", []string{"exit", "no"}, 3, "no", ""},
			{"a", nil, -1, "", `cannot run a command in task "a": it is empty`},
			{"b", []string{"echo"}, -1, "", `cannot run ["echo"] in task "b": it is not on this node`},
			{"strange", []string{"echo"}, -1, "", `cannot run ["echo"] in task "strange": this node has no runtime "vm"`},
		} {
			exit, output, err := r.w.Exec(r.Context(), c.id, c.argv)
			said := ""
			if err != nil {
				said = err.Error()
			}
			if exit != c.exit || output != c.output || said != c.err {
				t.Errorf("%s %q: %d, %q, %v", c.id, c.argv, exit, output, err)
			}
		}
		ctx, cancel := context.WithTimeout(r.Context(), time.Second)
		defer cancel()
		if _, output, err := r.w.Exec(ctx, "a", []string{"hang", "so far"}); output != "so far" || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("one that hangs: %q, %v", output, err)
		}
		r.rt.exit("a", 0)
		r.settle(0)
		if _, _, err := r.w.Exec(r.Context(), "a", []string{"echo", "hello"}); err == nil {
			t.Error("it ran in a task that ended")
		}
	})
}

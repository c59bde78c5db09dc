package dispatch

import (
	"testing"
	"testing/synctest"
	"time"

	"orch/engine/state"
)

type nothing struct {
	Store
	state *state.State
}

func (n nothing) View() state.View { return n.state.View() }

// An agent from before commands takes the request, and says nothing.
func TestExecOnAnOldAgent(t *testing.T) {
	for _, c := range []struct {
		timeout, waits time.Duration
		want           string
	}{
		{time.Minute, 62 * time.Second, "node n1 did not answer within 1m2s: its agent may be too old to run commands in tasks"},
		{0, 12 * time.Second, "node n1 did not answer within 12s: its agent may be too old to run commands in tasks"},
	} {
		synctest.Test(t, func(t *testing.T) {
			d := &Dispatcher{Store: nothing{state: state.New()}, sessions: map[string]*session{
				"n1": {node: "n1", wake: make(chan struct{}, 1), closed: make(chan struct{})},
			}}
			began := time.Now()
			_, _, err := d.Exec(t.Context(), "n1", "web/app.1#1", []string{"x"}, c.timeout)
			if err == nil || err.Error() != c.want || time.Since(began) != c.waits {
				t.Errorf("after %s: %v", time.Since(began), err)
			}
			if len(d.commands.all) != 0 {
				t.Errorf("left: %v", d.commands.all)
			}
		})
	}
}

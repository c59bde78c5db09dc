package reconcile

import (
	"fmt"
	"strings"

	"orch/engine/state"
)

// awaitsTurn says what its release brings through before this service starts
// for the first time, or that the release stopped before; "": it may start.
func (s *service) awaitsTurn() string {
	if s.turn == nil {
		text := ""
		r := s.view.Release(s.svc.Stack, s.svc.Release)
		step := state.Step(r, s.svc.Name)
		switch {
		case step == nil || step.Action != "create" && step.Action != "run":
		case step.Skipped:
			text = fmt.Sprintf("release %d did not come to it: %s", r.Number, step.Reason)
		case step.State != "":
		case r.Outcome != "":
			text = fmt.Sprintf("release %d is %s before its turn", r.Number, r.Outcome)
		default:
			text = fmt.Sprintf("waits for its turn in release %d", r.Number)
			if len(step.After) > 0 {
				text += ", after " + strings.Join(step.After, ", ")
			}
		}
		s.turn = &text
	}
	return *s.turn
}

package reconcile

import (
	"fmt"
	"strings"

	"orch/engine/state"
)

// awaitsTurn says which services the release under way brings through before
// this one starts; "": none.
func (s *service) awaitsTurn() string {
	if s.turn == nil {
		text := ""
		r := s.view.Underway(s.svc.Stack)
		if step := state.Step(r, s.svc.Name); step != nil && step.State == "" && (step.Action == "create" || step.Action == "run") {
			text = fmt.Sprintf("waits for its turn in release %d", r.Number)
			if len(step.After) > 0 {
				text += ", after " + strings.Join(step.After, ", ")
			}
		}
		s.turn = &text
	}
	return *s.turn
}

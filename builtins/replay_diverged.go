package builtins

import (
	"fmt"

	"go.starlark.net/starlark"

	"orch/engine/api"
)

// ErrDiverged says that a strategy does something else than it did when the
// journal was written: it is another one, or it isn't pure.
type ErrDiverged struct {
	Op      uint64  // its number in the journal
	Asked   *api.Op // nil: it returned
	Was     *api.Op
	service string
}

// Error implements error.
func (e *ErrDiverged) Error() string {
	where, does := "", "it returns"
	if e.Asked != nil {
		where, does = " ("+e.Asked.Origin+")", "it asks for "+OpText(e.Asked)
	}
	return fmt.Sprintf("the strategy has diverged at op %d%s: %s where the journal has %s; the same question must have the same answer. "+
		"End the rollout with `orch rollout abort %s`, or begin it anew with `orch rollout retry %[5]s`", e.Op, where, does, OpText(e.Was), e.service)
}

func (p *Replay) diverged(op, was *api.Op) error {
	e := &ErrDiverged{Op: was.Seq, Asked: op, Was: was, service: p.rollout.ServiceId}
	if e.Op == 0 {
		e.Op = uint64(p.at)
	}
	return e
}

// Returned says what is wrong with a strategy that returned without an op
// that ended its call.
func (p *Replay) Returned(f *starlark.Function) error {
	last := p.journal[len(p.journal)-1].Kind
	switch was := p.next(); {
	case was != nil:
		return p.diverged(nil, was)
	case last == "succeed" || last == "fail":
		return fmt.Errorf("strategy %s has come to its end, r.%s(), before: nothing is left to do", f.Name(), last)
	}
	return fmt.Errorf("strategy %s returned without an end: every path must come to r.succeed() or r.fail()", f.Name())
}

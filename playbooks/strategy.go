package playbooks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.starlark.net/starlark"
	"google.golang.org/protobuf/proto"

	"orch/builtins"
	"orch/engine/api"
	"orch/engine/rollout"
)

// Limits of one question to a strategy.
const (
	MaxStrategySteps = 5_000_000
	MaxStrategyTime  = 2 * time.Second // with that of evaluating its module
)

// Strategies asks strategies what comes next, in this process: it calls their
// function again from its top, with what the journal holds as results. The
// zero value is ready for use. Worker does the same in a child process, which
// engines need: what they ask is not theirs.
type Strategies struct {
	MaxTime time.Duration // 0: MaxStrategyTime
	Cover   *Coverage     // counts which of their statements run; nil: nothing does
	cache   moduleCache
}

var _ rollout.Strategy = (*Strategies)(nil)

// Next implements rollout.Strategy. What is wrong with the strategy is an
// *Error.
func (s *Strategies) Next(q rollout.Question) (*api.Op, error) {
	if v := q.Rollout.GetApiVersion(); v > rollout.APIVersion {
		return nil, fmt.Errorf("the rollout began with version %d of the ops, this engine knows only %d: upgrade it, or `orch rollout abort %s`", v, rollout.APIVersion, q.Rollout.ServiceId)
	}
	id, name, ok := cutStrategy(strategyOf(q.Rollout.Policy))
	if !ok {
		return nil, fmt.Errorf("strategy %q is not written file:function", q.Rollout.Policy.GetStrategy())
	}
	replay, err := builtins.NewReplay(q.Rollout, q.Journal)
	if err != nil {
		return nil, fmt.Errorf("cannot ask strategy %s: %w", name, err)
	}
	kwargs, err := argumentsOf(q.Rollout.Policy)
	if err != nil {
		return nil, fmt.Errorf("cannot ask strategy %s: %w", name, err)
	}
	thread := &starlark.Thread{Name: name}
	done := guard(context.Background(), thread, Options{MaxTime: cmp.Or(s.MaxTime, MaxStrategyTime), what: "strategy"})
	defer done()
	m, err := s.cache.module(thread, narrow(q, id), id, s.Cover)
	if err != nil {
		return nil, err
	}
	fn, ok := m.globals[name].(*starlark.Function)
	if !ok {
		return nil, fmt.Errorf("%s has no function %q", id, name)
	}
	limitSteps(thread, "strategy", MaxStrategySteps)
	run := &builtins.Run{Replays: true, Root: m.e.root, Params: m.e.run.Params, ReadFile: m.e.bundled}
	run.Attach(thread)
	thread.Load = nil
	if s.Cover != nil {
		thread.SetLocal(counting, true)
	}
	_, err = starlark.Call(thread, fn, starlark.Tuple{replay}, kwargs)
	if op := replay.Asked(); op != nil && errors.Is(err, builtins.ErrSuspended) {
		if _, err := proto.Marshal(op); err != nil { // text that isn't UTF-8
			return nil, fmt.Errorf("%s: the strategy asks for what can't be kept: %w", op.Origin, err)
		}
		return op, nil
	}
	return nil, m.failure(err, run, replay, fn)
}

// strategyOf is a policy's strategy: the library's rolling if it names none.
func strategyOf(p *api.RolloutPolicy) string {
	if s := p.GetStrategy(); s != "" {
		return s
	}
	return rollout.Library
}

// narrow leaves of the bundle what matters: a strategy of the library depends
// on the library alone, so that one evaluation serves all bundles with it.
func narrow(q rollout.Question, id string) rollout.Question {
	if !strings.HasPrefix(id, "@orch//") {
		return q
	}
	files := map[string][]byte{}
	for _, f := range q.Bundle.GetFiles() {
		if strings.HasPrefix(f.Path, "@orch//") {
			files[f.Path] = f.Content
		}
	}
	q.Bundle, q.ParamsJson = nil, ""
	if len(files) > 0 {
		q.Bundle = newBundle("", files)
	}
	return q
}

// argumentsOf are what a policy gives its strategy besides r: params, or the
// fields of a rollout() without a strategy.
func argumentsOf(p *api.RolloutPolicy) ([]starlark.Tuple, error) {
	var all []starlark.Tuple
	give := func(name string, v starlark.Value) { all = append(all, starlark.Tuple{starlark.String(name), v}) }
	text := func(name, v string) {
		if v != "" {
			give(name, starlark.String(v))
		}
	}
	switch {
	case p.GetParamsJson() != "":
		v, err := builtins.FromJSON([]byte(p.ParamsJson))
		d, ok := v.(*starlark.Dict)
		if err != nil || !ok {
			return nil, fmt.Errorf("its params are no JSON object: %q", p.ParamsJson)
		}
		for k, x := range d.Entries() {
			name, _ := starlark.AsString(k)
			give(name, x)
		}
	case strategyOf(p) == rollout.Library:
		parallelism, err := builtins.AsParam("int", starlark.String(p.GetParallelism()))
		switch {
		case p.GetParallelism() == "0": // as Docker has it
			text("parallelism", "100%")
		case err == nil:
			give("parallelism", parallelism)
		default:
			text("parallelism", p.GetParallelism())
		}
		if p.GetDelay() != nil {
			text("delay", builtins.DurationText(p.Delay))
		}
		text("order", p.GetOrder())
		if p.GetMonitor() != nil {
			text("monitor", builtins.DurationText(p.Monitor))
		}
		give("max_failure_ratio", starlark.Float(p.GetMaxFailureRatio()))
		text("on_failure", p.GetOnFailure())
	}
	return all, nil
}

// failure says why a call of the strategy told no op.
func (m *strategyModule) failure(err error, run *builtins.Run, replay *builtins.Replay, fn *starlark.Function) error {
	var found []Diagnostic
	l := &locator{text: m.e.read}
	for _, p := range run.Problems {
		found = append(found, l.diagnostic(p, "error"))
	}
	if err == nil && len(found) == 0 {
		err = replay.Returned(fn)
	}
	var diverged *builtins.ErrDiverged
	var raised *starlark.EvalError
	switch {
	case errors.As(err, &diverged):
		found = append(found, Diagnostic{Severity: "error", Message: diverged.Error()})
	case err != nil && !errors.As(err, &raised):
		found = append(found, at(fn.Position(), err.Error()))
	case err != nil && !errors.Is(err, builtins.ErrReported) && !errors.Is(err, builtins.ErrTooMany) && !errors.Is(err, builtins.ErrSuspended):
		found = append(found, m.e.diagnose(err)...)
	}
	return newError(m.e.read, found)
}

package builtins

import (
	"errors"
	"fmt"
	"strconv"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"orch/engine/api"
)

// MaxProblems is how many errors a run collects before it gives up.
const MaxProblems = 50

// ErrTooMany ends a run that has collected MaxProblems errors.
var ErrTooMany = errors.New("too many errors")

// Run is one evaluation of one playbook. The zero value evaluates a playbook
// that has neither files nor params.
type Run struct {
	// Root is the file name of the root playbook, the only one that may call param().
	Root string
	// ReadFile returns a file of the bundle; path is as written in module from.
	ReadFile func(from, path string) ([]byte, error)
	// Params are the values given from outside. Strings are read as the
	// param's type.
	Params map[string]starlark.Value
	// Replays: a strategy is asked, after the evaluation; there is no stack to
	// declare any more.
	Replays bool
	// Print receives print()'s text.
	Print func(pos syntax.Position, text string)

	Problems []Problem // errors, in the order found
	Warnings []Problem
	Spec     *api.StackSpec            // of the stack() call, nil before it
	Used     map[string]starlark.Value // params that param() was called for, with their values

	stackAt syntax.Position
	made    []named
	reached map[starlark.Value]bool

	values []any // lent to the call under way
	given  []bool
}

// named is a value that does nothing until a stack reaches it.
type named struct {
	value      starlark.Value
	kind, name string
	at         syntax.Position
}

// Problem is an error or a warning about a call. Pos is the call's opening
// parenthesis as Starlark reports it; Arg (a parameter's name), or else Index
// (a positional argument, from 1), narrows it to one argument.
type Problem struct {
	Pos     syntax.Position
	Arg     string
	Index   int
	Message string
	Hint    string // "did you mean ..."
	Stack   starlark.CallStack
}

const runKey = "orch.run"

// Attach makes thread's calls belong to r.
func (r *Run) Attach(thread *starlark.Thread) {
	thread.SetLocal(runKey, r)
	thread.Print = func(t *starlark.Thread, text string) {
		if r.Print != nil {
			r.Print(callerPos(t), text)
		}
	}
}

func runOf(thread *starlark.Thread) *Run {
	r, _ := thread.Local(runKey).(*Run)
	if r == nil {
		panic("builtins: the thread has no Run attached")
	}
	return r
}

func (r *Run) report(p Problem) {
	if len(r.Problems) <= MaxProblems {
		r.Problems = append(r.Problems, p)
	}
}

// Finish warns about values that no stack reached.
func (r *Run) Finish() {
	if r.Spec == nil {
		return
	}
	for _, m := range r.made {
		if s, ok := m.value.(*Service); ok && s.reached.Load() || r.reached[m.value] {
			continue
		}
		r.Warnings = append(r.Warnings, Problem{Pos: m.at, Message: fmt.Sprintf("%s %q is never part of the stack", m.kind, m.name)})
	}
}

func (r *Run) reach(v starlark.Value) {
	if s, ok := v.(*Service); ok {
		s.reached.Store(true)
		return
	}
	if r.reached == nil {
		r.reached = map[starlark.Value]bool{}
	}
	r.reached[v] = true
}

// callerPos is where the innermost Starlark function stands.
func callerPos(thread *starlark.Thread) syntax.Position {
	for depth := 1; depth < thread.CallStackDepth(); depth++ {
		if pos := thread.CallFrame(depth).Pos; pos.Line > 0 {
			return pos
		}
	}
	return syntax.Position{}
}

func originOf(pos syntax.Position) string {
	if pos.Line == 0 {
		return ""
	}
	// What pos.String() does, in half the time: each value asks for its own.
	b := make([]byte, 0, 32)
	b = append(append(b, pos.Filename()...), ':')
	b = append(strconv.AppendInt(b, int64(pos.Line), 10), ':')
	return string(strconv.AppendInt(b, int64(pos.Col), 10))
}

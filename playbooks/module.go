package playbooks

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"

	"go.starlark.net/starlark"

	"orch/builtins"
)

// Module is a file that was evaluated for its functions, such as a test; it
// needs no stack. Not safe for concurrent use.
type Module struct {
	e       *evaluation
	dir     string // of the root
	globals starlark.StringDict
}

// OpenModule evaluates the file at o.Path and keeps it for Call. Close it.
func OpenModule(ctx context.Context, o Options) (*Module, error) {
	e, err := newEvaluation(o)
	if err != nil {
		return nil, err
	}
	m := &Module{e: e}
	if d, ok := e.src.(*diskSource); ok {
		m.dir = d.root.Name()
	}
	err = m.run(ctx, func(thread *starlark.Thread) error {
		var err error
		m.globals, err = e.module(thread, e.root)
		return err
	})
	if err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// Close releases the folder that the module reads from.
func (m *Module) Close() error { return m.e.src.Close() }

// Functions lists the module's functions whose names begin with prefix,
// sorted.
func (m *Module) Functions(prefix string) []string {
	var names []string
	for name, v := range m.globals {
		if _, ok := v.(*starlark.Function); ok && strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Call calls a function of the module under the limits of an evaluation.
// What goes wrong in it is an *Error.
func (m *Module) Call(ctx context.Context, name string, args ...starlark.Value) error {
	m.e.found, m.e.run.Problems, m.e.run.Spec = nil, nil, nil
	return m.run(ctx, func(thread *starlark.Thread) error {
		_, err := starlark.Call(thread, m.globals[name], args, nil)
		return err
	})
}

func (m *Module) run(ctx context.Context, do func(*starlark.Thread) error) error {
	e := m.e
	thread := &starlark.Thread{Name: e.root, Load: e.load}
	e.run.Attach(thread)
	done := guard(ctx, thread, e.options)
	err := do(thread)
	done()
	found := e.found
	if err != nil && !errors.Is(err, errReported) && !errors.Is(err, builtins.ErrTooMany) {
		found = append(found, e.diagnose(err)...)
	}
	l := &locator{text: e.read}
	for _, p := range e.run.Problems {
		found = append(found, l.diagnostic(p, "error"))
	}
	if len(found) > 0 {
		return newError(e.read, found)
	}
	return nil
}

// Attempt calls a function and returns how it failed, as text; "" if it did
// not. What builtins report in it counts as failure of fn alone.
func (m *Module) Attempt(thread *starlark.Thread, fn starlark.Value) string {
	run := m.e.run
	before := len(run.Problems)
	_, err := starlark.Call(thread, fn, nil, nil)
	var all []string
	for _, p := range run.Problems[before:] {
		all = append(all, strings.TrimSpace(p.Message+" "+p.Hint))
	}
	run.Problems = run.Problems[:before]
	if err != nil {
		for _, d := range m.e.diagnose(err) {
			all = append(all, d.Message)
		}
	}
	return strings.Join(all, "\n")
}

// Path is where a path written in the module lies on disk; it is below the
// root.
func (m *Module) Path(written string) (string, error) {
	id, err := refer(m.e.root, written)
	if err != nil {
		return "", err
	}
	_, file := splitID(id)
	return filepath.Join(m.dir, filepath.FromSlash(file)), nil
}

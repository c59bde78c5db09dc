package playbooks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"orch/builtins"
	"orch/engine/api"
)

// Options say what to evaluate. Exactly one of Path and Bundle is needed.
type Options struct {
	Path   string      // a playbook on disk
	Bundle *api.Bundle // or one that was made before

	// Params by name, as JSON's Go values or int; a string is read as the
	// param's type, so that what follows --set can be passed as it is.
	Params     map[string]any
	ParamsJSON string // the same as a JSON object; Params win

	CacheDir string                 // for compiled programs; "": none
	Print    func(pos, text string) // of print(); nil: dropped

	MaxSteps  uint64        // 0: 50 million
	MaxTime   time.Duration // 0: 10 s
	MaxMemory uint64        // bytes of heap, looked at every few ms; 0: 512 MiB

	what  string    // for errors; "": a playbook
	cover *Coverage // counts what runs of its functions; nil: nothing does
}

// Result is a playbook's meaning.
type Result struct {
	Spec       *api.StackSpec
	Bundle     *api.Bundle // all that was read, to evaluate again elsewhere
	Warnings   []Diagnostic
	Params     map[string]any // of every param() called: its value
	ParamsJSON string         // those that were set, canonical
	Steps      uint64         // computation steps used
}

// Eval evaluates a playbook. Mistakes in it come as *Error; a Result comes
// with it where the bundle could be read, for its Bundle and Warnings.
func Eval(ctx context.Context, o Options) (*Result, error) {
	e, err := newEvaluation(o)
	if err != nil {
		return nil, err
	}
	defer e.src.Close()
	thread := &starlark.Thread{Name: e.root, Load: e.load}
	e.run.Attach(thread)
	done := guard(ctx, thread, o)
	_, err = e.module(thread, e.root)
	done()
	e.run.Finish()
	if err == nil {
		err = e.holdLibrary()
	}
	return e.result(err, thread.ExecutionSteps())
}

// evaluation is one Eval under way.
type evaluation struct {
	options Options
	src     source
	root    string // id
	run     *builtins.Run
	read    map[string][]byte // what was read, by id
	size    int
	modules map[string]*module
	loading []string
	found   []Diagnostic
}

type module struct {
	globals starlark.StringDict
	err     error
}

// errReported stands for an error that is among the found ones already.
var errReported = errors.New("reported")

func newEvaluation(o Options) (*evaluation, error) {
	e := &evaluation{options: o, read: map[string][]byte{}, modules: map[string]*module{}}
	params, err := paramValues(o)
	if err != nil {
		return nil, err
	}
	switch {
	case (o.Bundle == nil) == (o.Path == ""):
		return nil, errors.New("playbooks: exactly one of Path and Bundle is needed")
	case o.Bundle != nil:
		e.root = o.Bundle.Root
		e.src, err = openBundle(o.Bundle)
	default:
		e.src, e.root, err = openDisk(o.Path)
	}
	if err != nil {
		return nil, err
	}
	e.run = &builtins.Run{Root: e.root, Params: params, ReadFile: e.file}
	if o.Print != nil {
		e.run.Print = func(pos syntax.Position, text string) { o.Print(pos.String(), text) }
	}
	return e, nil
}

func paramValues(o Options) (map[string]starlark.Value, error) {
	all := map[string]any{}
	values := map[string]starlark.Value{}
	if o.ParamsJSON != "" {
		v, err := builtins.FromJSON([]byte(o.ParamsJSON))
		d, ok := v.(*starlark.Dict)
		if err != nil || !ok {
			return nil, fmt.Errorf("params are not a JSON object: %q", o.ParamsJSON)
		}
		for k, x := range d.Entries() {
			name, _ := starlark.AsString(k)
			all[name] = x
		}
	}
	maps.Copy(all, o.Params)
	for name, x := range all {
		v, err := builtins.FromGo(x)
		if err != nil {
			return nil, fmt.Errorf("param %q: %w", name, err)
		}
		values[name] = v
	}
	return values, nil
}

// holdLibrary makes the bundle hold the library's strategies where a service
// has one of them without having loaded it: what it says then goes for all of
// a rollout, also by an engine that comes with another library. A bundle made
// before there were strategies stays as it is; engines use their own for it.
func (e *evaluation) holdLibrary() error {
	for _, s := range e.run.Spec.GetServices() {
		if s.Mode != "job" && s.Update.GetStrategy() == builtins.Library {
			id, _, _ := cutStrategy(builtins.Library)
			if _, err := e.get(id); err != nil && e.options.Path != "" {
				return fmt.Errorf("cannot read %s: %w", id, err)
			}
			return nil
		}
	}
	return nil
}

// get reads a source or file and remembers it for the bundle.
func (e *evaluation) get(id string) ([]byte, error) {
	if b, ok := e.read[id]; ok {
		return b, nil
	}
	b, err := e.src.read(id)
	if err != nil {
		return nil, err
	}
	if e.size += len(b); e.size > MaxBundle {
		return nil, fmt.Errorf("the bundle would be larger than %d MiB", MaxBundle>>20)
	}
	e.read[id] = b
	return b, nil
}

// file is file() and template().
func (e *evaluation) file(from, path string) ([]byte, error) {
	id, err := refer(from, path)
	if err == nil {
		var b []byte
		if b, err = e.get(id); err == nil {
			return b, nil
		}
	}
	return nil, fmt.Errorf("cannot read %q: %w", path, err)
}

// load is the load statement.
func (e *evaluation) load(thread *starlark.Thread, ref string) (starlark.StringDict, error) {
	id, err := resolveLoad(thread.CallFrame(0).Pos.Filename(), ref)
	if err != nil {
		return nil, err
	}
	if i := slices.Index(e.loading, id); i >= 0 {
		cycle := ""
		for _, m := range e.loading[i:] {
			cycle += m + " -> "
		}
		return nil, fmt.Errorf("modules load one another: %s%s", cycle, id)
	}
	if _, err := e.get(id); err != nil {
		return nil, fmt.Errorf("cannot load %q: %w", ref, err)
	}
	return e.module(thread, id)
}

// module evaluates a module, once.
func (e *evaluation) module(thread *starlark.Thread, id string) (starlark.StringDict, error) {
	if m := e.modules[id]; m != nil {
		return m.globals, m.err
	}
	e.loading = append(e.loading, id)
	m := &module{}
	m.globals, m.err = e.exec(thread, id)
	e.loading = e.loading[:len(e.loading)-1]
	e.modules[id] = m
	return m.globals, m.err
}

func (e *evaluation) exec(thread *starlark.Thread, id string) (starlark.StringDict, error) {
	text, err := e.get(id)
	if err != nil {
		return nil, fmt.Errorf("cannot read playbook %q: %w", id, err)
	}
	program, known, err := e.program(id, text)
	if err != nil {
		e.found = append(e.found, diagnosticsOf(err)...)
		return nil, errReported
	}
	globals, err := program.Init(thread, known)
	if err != nil {
		if !errors.Is(err, errReported) && !errors.Is(err, builtins.ErrTooMany) && !errors.Is(err, builtins.ErrReported) {
			e.found = append(e.found, e.diagnose(err)...)
		}
		return nil, errReported
	}
	globals.Freeze()
	return globals, nil
}

// diagnose makes failures of load and fail() read plainly.
func (e *evaluation) diagnose(err error) []Diagnostic {
	all := diagnosticsOf(err)
	var fail builtins.ErrFail
	if errors.As(err, &fail) {
		all[0].Message = fail.Message
	}
	return all
}

func (e *evaluation) result(err error, steps uint64) (*Result, error) {
	l := &locator{text: e.read}
	found := e.found
	if err != nil && !errors.Is(err, errReported) {
		found = append(found, diagnosticsOf(err)...)
	}
	for _, p := range e.run.Problems {
		found = append(found, l.diagnostic(p, "error"))
	}
	if text, ok := e.read[e.root]; ok && len(e.run.Params) > 0 {
		given := slices.Sorted(maps.Keys(e.run.Params))
		found = append(found, unknownParams(e.root, text, given, func(n string) bool { return e.run.Used[n] != nil })...)
	}
	if e.run.Spec == nil && len(found) == 0 {
		found = append(found, Diagnostic{Severity: "error", File: e.root, Message: "the playbook declares no stack: end it with stack(name, services = [...])"})
	}
	r := &Result{Bundle: newBundle(e.root, e.read), Steps: steps, Params: map[string]any{}}
	for _, p := range e.run.Warnings {
		r.Warnings = append(r.Warnings, l.diagnostic(p, "warning"))
	}
	r.Warnings = finish(e.read, r.Warnings)
	if len(found) > 0 {
		return r, newError(e.read, found)
	}
	r.Spec = e.run.Spec
	set := map[string]any{}
	for name, v := range e.run.Used {
		r.Params[name] = builtins.ToGo(v)
		if _, ok := e.run.Params[name]; ok {
			set[name] = r.Params[name]
		}
	}
	if b, err := json.Marshal(set); err == nil && len(set) > 0 {
		r.ParamsJSON = string(b)
	}
	return r, nil
}

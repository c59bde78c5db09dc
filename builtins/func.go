package builtins

import (
	"fmt"
	"strings"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
)

// Param is one parameter of a Func.
type Param struct {
	Name     string
	Kind     Kind
	Default  string // a Starlark literal; "" makes the parameter required
	Doc      string
	Position bool // may be given without its name
	value    any  // the default as Kind reads it; nil for None
}

// Func is a builtin: its table and what it does.
type Func struct {
	Name    string // "service", "health.http"
	Doc     string // first line a summary
	Params  []Param
	Rest    string // what further keywords mean; "" refuses them
	Returns string // Starlark type
	Example string
	// Elsewhere maps words that people try, Docker's and Compose's, to what to
	// do instead.
	Elsewhere map[string]string

	attribute bool // it is read, not called
	build     func(c *call) (starlark.Value, error)
	index     map[string]int
	npos      int
	defaults  []any // by parameter
}

// call is one call of a Func while it is carried out.
type call struct {
	fn     *Func
	run    *Run
	thread *starlark.Thread
	at     syntax.Position
	values []any  // by parameter; nil where None or missing. Lent by run: gone once the call has ended
	given  []bool // by parameter; so are these
	kept   []kept // what was given, for a call that a Service outlives
	rest   []starlark.Tuple
	bad    bool // an error was reported
}

type kept struct {
	param int
	value any
}

// keep holds on to the arguments given. At 10,000 services this is a third
// of the memory that whole tables would take.
func (c *call) keep() {
	n := 0
	for _, g := range c.given {
		if g {
			n++
		}
	}
	c.kept = make([]kept, 0, n)
	for i, g := range c.given {
		if g {
			c.kept = append(c.kept, kept{i, c.values[i]})
		}
	}
	c.values, c.given, c.rest, c.thread = nil, nil, nil, nil
}

// keptValues are the values given for a list parameter of a kept call.
func (c *call) keptValues(name string) []*Value {
	i := c.at_(name)
	for _, k := range c.kept {
		if k.param == i {
			return asValues(k.value)
		}
	}
	return nil
}

func (f *Func) init() *Func {
	f.index = make(map[string]int, len(f.Params))
	for i := range f.Params {
		p := &f.Params[i]
		f.index[p.Name] = i
		if p.Position {
			f.npos++
		}
		if p.Default == "" || p.Default == "None" {
			continue
		}
		v, err := starlark.EvalOptions(&syntax.FileOptions{}, new(starlark.Thread), f.Name, p.Default, nil)
		if err == nil {
			p.value, err = p.Kind.read(v)
		}
		if err != nil {
			panic(fmt.Sprintf("builtins: default of %s(%s): %v", f.Name, p.Name, err))
		}
	}
	f.defaults = make([]any, len(f.Params))
	for i := range f.Params {
		f.defaults[i] = f.Params[i].value
	}
	return f
}

// builtin makes the Starlark function.
func (f *Func) builtin() *starlark.Builtin {
	f.init()
	return starlark.NewBuiltin(f.Name, func(t *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
		c := f.begin(t)
		c.unpack(args, kwargs)
		c.required()
		return c.finish(f.build(c))
	})
}

// begin lends the run's buffers to a call: builtins never call one another.
func (f *Func) begin(t *starlark.Thread) *call {
	n, r := len(f.Params), runOf(t)
	if cap(r.values) < n {
		r.values, r.given = make([]any, n), make([]bool, n)
	}
	c := &call{fn: f, run: r, thread: t, at: callerPos(t), values: r.values[:n], given: r.given[:n]}
	copy(c.values, f.defaults)
	clear(c.given)
	return c
}

func (c *call) finish(v starlark.Value, err error) (starlark.Value, error) {
	if err == nil && len(c.run.Problems) >= MaxProblems {
		err = ErrTooMany
	}
	return v, err
}

func (c *call) unpack(args starlark.Tuple, kwargs []starlark.Tuple) {
	f := c.fn
	if len(args) > f.npos {
		want := "no argument without a name"
		if f.npos > 0 {
			var names []string
			for _, p := range f.Params[:f.npos] {
				names = append(names, p.Name)
			}
			want = "only " + strings.Join(names, " and ") + " without a name"
		}
		c.problem(Problem{Index: f.npos + 1, Message: fmt.Sprintf("%s takes %s; write the rest as NAME = VALUE", f.Name, want)})
		args = args[:f.npos]
	}
	for i, v := range args {
		c.set(i, v, i+1)
	}
	for _, kw := range kwargs {
		name, _ := starlark.AsString(kw[0])
		i, ok := f.index[name]
		switch {
		case !ok && f.Rest != "":
			c.rest = append(c.rest, kw)
		case !ok:
			c.unknown(name)
		case i < len(args):
			c.problem(Problem{Arg: name, Message: fmt.Sprintf("%s: %s is given twice", f.Name, name)})
		default:
			c.set(i, kw[1], 0)
		}
	}
}

func (c *call) set(i int, v starlark.Value, position int) {
	p := &c.fn.Params[i]
	if v == starlark.None { // the default, also where with_() had a value
		c.values[i], c.given[i] = p.value, false
		return
	}
	x, err := p.Kind.read(v)
	c.given[i] = true
	if err != nil {
		pr := Problem{Arg: p.Name, Index: position, Message: fmt.Sprintf("%s: %s%s", c.fn.Name, p.Name, err.Error())}
		if h, ok := err.(hinted); ok {
			pr.Hint = h.hint
		}
		c.problem(pr)
		return
	}
	c.values[i] = x
}

func (c *call) required() {
	var missing []string
	for i := range c.fn.Params {
		if p := &c.fn.Params[i]; p.Default == "" && !c.given[i] {
			missing = append(missing, p.Name)
		}
	}
	if len(missing) > 0 {
		c.problem(Problem{Message: fmt.Sprintf("%s needs %s", c.fn.Name, strings.Join(missing, ", "))})
	}
}

func (c *call) unknown(name string) {
	if why, ok := c.fn.Elsewhere[name]; ok {
		c.problem(Problem{Arg: name, Message: fmt.Sprintf("%s does not take %s: %s", c.fn.Name, name, why)})
		return
	}
	names := make([]string, len(c.fn.Params))
	for i, p := range c.fn.Params {
		names[i] = p.Name
	}
	c.problem(Problem{Arg: name, Message: fmt.Sprintf("%s has no parameter %q", c.fn.Name, name), Hint: Suggest(name, names)})
}

func (c *call) problem(p Problem) {
	c.bad = true
	p.Pos = c.at
	p.Stack = c.thread.CallStack()
	c.run.report(p)
}

// errorf reports an error of one argument ("": of the call).
func (c *call) errorf(arg, format string, args ...any) {
	p := Problem{Arg: arg, Message: c.fn.Name + ": " + fmt.Sprintf(format, args...)}
	if i, ok := c.fn.index[arg]; ok && c.fn.Params[i].Position {
		p.Index = i + 1
	}
	c.problem(p)
}

func (c *call) has(name string) bool { return c.given[c.at_(name)] }

func (c *call) at_(name string) int {
	i, ok := c.fn.index[name]
	if !ok {
		panic("builtins: " + c.fn.Name + " has no parameter " + name)
	}
	return i
}

// get returns a parameter; T's zero value where it is None.
func get[T any](c *call, name string) T {
	x, _ := c.values[c.at_(name)].(T)
	return x
}

func (c *call) str(name string) string { return get[string](c, name) }
func (c *call) bool(name string) bool  { return get[bool](c, name) }
func (c *call) int(name string) int    { return get[int](c, name) }
func (c *call) origin() string         { return originOf(c.at) }

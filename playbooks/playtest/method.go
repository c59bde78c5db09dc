package playtest

import (
	"fmt"
	"slices"
	"strings"

	"go.starlark.net/starlark"

	"orch/builtins"
)

// method is a function of t, or of what one returns: its manual and what it
// does. Its table is what `orch doc t` shows and what unpacks its arguments.
type method struct {
	name    string // "t.eq"
	params  []param
	returns string
	doc     string
	example string
	do      func(*tester, *call) (starlark.Value, error)
}

type param struct {
	name     string
	text     string // its default as Starlark; "": it is required
	doc      string
	position bool // may be given without its name
}

// call is one call of a method.
type call struct {
	thread *starlark.Thread
	method *method
	args   map[string]starlark.Value // those that were given and aren't None
}

// errorf says what is wrong with one argument.
func (c *call) errorf(arg, format string, args ...any) error {
	return fmt.Errorf("%s: %s %s", c.method.name, arg, fmt.Sprintf(format, args...))
}

func (m *method) builtin(t *tester) *starlark.Builtin {
	return starlark.NewBuiltin(m.name, func(thread *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
		c := &call{thread: thread, method: m}
		if err := c.unpack(args, kwargs); err != nil {
			return nil, err
		}
		v, err := m.do(t, c)
		if v == nil && err == nil {
			v = starlark.None
		}
		return v, err
	})
}

func (c *call) unpack(args starlark.Tuple, kwargs []starlark.Tuple) error {
	m := c.method
	c.args = map[string]starlark.Value{}
	given := map[string]bool{}
	var names, positional []string
	for _, p := range m.params {
		names = append(names, p.name)
		if p.position {
			positional = append(positional, p.name)
		}
	}
	if len(args) > len(positional) {
		return fmt.Errorf("%s takes only %s without a name; write the rest as NAME = VALUE", m.name, strings.Join(positional, " and "))
	}
	for i, v := range args {
		given[positional[i]] = true
		c.args[positional[i]] = v
	}
	for _, kw := range kwargs {
		name, _ := starlark.AsString(kw[0])
		switch {
		case given[name]:
			return fmt.Errorf("%s: %s is given twice", m.name, name)
		case !slices.Contains(names, name):
			return hinted(fmt.Errorf("%s has no parameter %q", m.name, name), name, names)
		}
		given[name] = true
		if kw[1] != starlark.None {
			c.args[name] = kw[1]
		}
	}
	var missing []string
	for _, p := range m.params {
		if p.text == "" && !given[p.name] {
			missing = append(missing, p.name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("%s needs %s", m.name, strings.Join(missing, ", "))
	}
	return nil
}

// hinted adds what word was probably meant to be, or else what there is.
func hinted(err error, word string, known []string) error {
	if hint := builtins.Suggest(word, known); hint != "" {
		return fmt.Errorf("%w; %s", err, hint)
	}
	if len(known) > 0 {
		return fmt.Errorf("%w; there is %s", err, strings.Join(known, ", "))
	}
	return err
}

// text reads a string; "" where it isn't given.
func (c *call) text(name string) (string, error) {
	v, ok := c.args[name]
	if !ok {
		return "", nil
	}
	s, ok := starlark.AsString(v)
	if !ok {
		return "", c.errorf(name, "must be a string, not %s", show(v))
	}
	return s, nil
}

// named reads a dict whose keys are strings; nil where it isn't given.
func (c *call) named(name string) (map[string]starlark.Value, error) {
	v, ok := c.args[name]
	if !ok {
		return nil, nil
	}
	d, ok := v.(*starlark.Dict)
	if !ok {
		return nil, c.errorf(name, "must be a dict, not %s", show(v))
	}
	all := map[string]starlark.Value{}
	for k, x := range d.Entries() {
		key, ok := starlark.AsString(k)
		if !ok {
			return nil, c.errorf(name, "must have strings as keys, not %s", show(k))
		}
		all[key] = x
	}
	return all, nil
}

// list reads a list of strings.
func (c *call) list(name string) ([]string, error) {
	it, ok := c.args[name].(starlark.Iterable)
	if !ok {
		return nil, c.errorf(name, "must be a list of strings, not %s", show(c.args[name]))
	}
	var all []string
	for v := range starlark.Elements(it) {
		s, ok := starlark.AsString(v)
		if !ok {
			return nil, c.errorf(name, "must be a list of strings, not of %s", show(v))
		}
		all = append(all, s)
	}
	return all, nil
}

// show is a value as errors name it.
func show(v starlark.Value) string {
	s := v.String()
	if len(s) > 40 {
		s = s[:37] + "..."
	}
	return s + " (" + v.Type() + ")"
}

// value is an argument as it is; None where it isn't given.
func (c *call) value(name string) starlark.Value {
	if v, ok := c.args[name]; ok {
		return v
	}
	return starlark.None
}

package builtins

import (
	"fmt"
	"strings"

	"go.starlark.net/starlark"

	"orch/engine/api"
)

// MaxParams is how long a strategy's params may be as JSON, in bytes.
const MaxParams = 64 << 10

// strategyKind reads functions that can be found again by module and name
// alone, as a rollout outlives the evaluation that names its strategy. What
// begins in the first column is a statement of the module itself, and names
// can't be assigned twice there, so its globals hold the function; its free
// variables are names that the module loads.
var strategyKind = Kind{Name: "function", Stub: "Any", read: func(v starlark.Value) (any, error) {
	const want = "a function that a module defines"
	switch f := v.(type) {
	case *starlark.Function:
		switch pos := f.Position(); {
		case f.Name() == "lambda":
			return nil, hinted{": a lambda has no name to find it by when the rollout goes on", "write def NAME(r): ... at the top level of a module"}
		case pos.Col > 1 && f.NumFreeVars() > 0:
			name, _ := f.FreeVar(0)
			return nil, hinted{fmt.Sprintf(": %s uses %s of the function around it, which is gone when the rollout goes on", f.Name(), name.Name),
				"define it at the top level of a module, and give it the rest by params"}
		case pos.Col > 1:
			return nil, hinted{fmt.Sprintf(": %s is defined within something else (%s)", f.Name(), pos), "define it at the top level of a module"}
		}
		if names := positionals(f); len(names) == 0 && !f.HasVarargs() {
			return nil, hinted{fmt.Sprintf(": %s takes nothing without a name", f.Name()), "its first parameter is r, what it works with"}
		}
		return f, nil
	case starlark.String:
		return nil, wrongHint(want, v, "give the function itself, without quotes")
	}
	return nil, wrong(want, v)
}}

// keywords are the parameters of f that have a name and may be given by it.
func keywords(f *starlark.Function) []string {
	n := f.NumParams()
	if f.HasVarargs() {
		n--
	}
	if f.HasKwargs() {
		n--
	}
	names := make([]string, n)
	for i := range names {
		names[i], _ = f.Param(i)
	}
	return names
}

func positionals(f *starlark.Function) []string {
	all := keywords(f)
	return all[:len(all)-f.NumKwonlyParams()]
}

// strategy fills in the function and its params.
func (c *call) strategy(r *api.RolloutPolicy) {
	f := get[*starlark.Function](c, "strategy")
	if f == nil {
		return
	}
	r.Strategy, r.ParamsJson = f.Position().Filename()+":"+f.Name(), "{}"
	given := starlark.NewDict(0)
	if v := get[starlark.Value](c, "params"); v != nil {
		d, ok := v.(*starlark.Dict)
		if !ok {
			c.errorf("params", "params must be a dict, not %s", show(v))
			return
		}
		given = d
	}
	if !c.fits(f, given) {
		return
	}
	text, err := jsonOf(given, 0)
	switch {
	case err != nil:
		p := Problem{Arg: "params", Message: "rollout: params" + err.Error()}
		if h, ok := err.(hinted); ok {
			p.Hint = h.hint
		}
		c.problem(p)
	case len(text) > MaxParams:
		c.errorf("params", "params take %d KiB, more than %d", len(text)>>10, MaxParams>>10)
	default:
		r.ParamsJson = text
	}
}

// fits checks the names of params against the function's.
func (c *call) fits(f *starlark.Function, given *starlark.Dict) bool {
	names, first := keywords(f), ""
	if len(positionals(f)) > 0 {
		first, names = names[0], names[1:]
	}
	known := map[string]bool{}
	for _, n := range names {
		known[n] = true
	}
	before := c.bad
	c.bad = false
	for k := range given.Entries() {
		name, ok := k.(starlark.String)
		switch {
		case !ok:
			c.errorf("params", "params must have strings as keys, not %s", show(k))
		case string(name) == first:
			c.errorf("params", "params[%s]: the engine itself gives %s, the first parameter", name, first)
		case !known[string(name)] && !f.HasKwargs():
			hint := Suggest(string(name), names)
			if hint == "" && len(names) > 0 {
				hint = "it has " + strings.Join(names, ", ")
			}
			c.problem(Problem{Arg: "params", Message: fmt.Sprintf("rollout: strategy %s (%s) has no parameter %s", f.Name(), f.Position(), name), Hint: hint})
		}
	}
	var missing []string
	offset := len(keywords(f)) - len(names)
	for i, n := range names {
		if _, is, _ := given.Get(starlark.String(n)); !is && f.ParamDefault(offset+i) == nil {
			missing = append(missing, n)
		}
	}
	if len(missing) > 0 {
		arg := "strategy"
		if c.has("params") {
			arg = "params"
		}
		c.errorf(arg, "strategy %s (%s) needs %s: give it in params", f.Name(), f.Position(), strings.Join(missing, ", "))
	}
	ok := !c.bad
	c.bad = c.bad || before
	return ok
}

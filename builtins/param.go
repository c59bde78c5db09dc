package builtins

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.starlark.net/starlark"
)

// ParamTypes are the types that a param can have.
var ParamTypes = []string{"string", "int", "float", "bool", "list", "dict"}

var paramFunc = &Func{
	Name: "param",
	Doc: `A value that is chosen at each run: --set NAME=VALUE. Only the root playbook may call it, with a literal name, so that ` + "`orch params`" + ` can list them.
Without default it must be set; default = None makes it None when it isn't set.`,
	Returns: "the value",
	Params: []Param{
		{Name: "name", Kind: textKind, Position: true, Doc: "Name for --set, a literal."},
		{Name: "default", Kind: anyKind, Default: "None", Doc: "Value where it isn't set; it also fixes the type."},
		{Name: "type", Kind: choice(ParamTypes...), Default: "None", Doc: "Type; None means the default's, else string. A list or dict is set as JSON, a list also as a,b,c."},
		{Name: "choices", Kind: anyKind, Default: "None", Doc: "List of the values allowed."},
		{Name: "doc", Kind: textKind, Default: "None", Doc: "What it is for."},
	},
	Example: `replicas = param("replicas", default = 3, doc = "Number of web servers")`,
}

// paramBuiltin differs from others in that `default = None` is not the same
// as no default.
func paramBuiltin() *starlark.Builtin {
	f := paramFunc.init()
	return starlark.NewBuiltin(f.Name, func(t *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
		c := f.begin(t)
		c.unpack(args, kwargs)
		optional := false
		for _, kw := range kwargs {
			optional = optional || kw[0] == starlark.String("default")
		}
		c.required()
		return c.finish(c.param(optional), nil)
	})
}

func (c *call) param(optional bool) starlark.Value {
	name := c.str("name")
	var def starlark.Value = starlark.None
	if v := get[starlark.Value](c, "default"); v != nil {
		def = v
	}
	typ := c.str("type")
	if typ == "" {
		typ = ParamType(def)
	}
	if c.at.Filename() != c.run.Root {
		c.errorf("", "param() works only in the root playbook (%s); take %q as an argument of a function here", c.run.Root, name)
		return def
	}
	if typ == "" {
		c.errorf("default", "default is a %s; a param is a string, int, float, bool, list or dict", def.Type())
		return def
	}
	if _, twice := c.run.Used[name]; twice {
		c.errorf("name", "param %q is there twice; keep it in a variable", name)
		return def
	}
	if c.run.Used == nil {
		c.run.Used = map[string]starlark.Value{}
	}
	c.run.Used[name] = def
	if c.bad {
		return def
	}
	value, given := c.run.Params[name]
	switch {
	case !given && !optional:
		c.errorf("", "%q has no default, so it must be set: --set %s=...", name, name)
		return Zero(typ)
	case !given:
		return def
	}
	v, err := AsParam(typ, value)
	if err != nil {
		c.errorf("", "--set %s: %v", name, err)
		return def
	}
	if l, ok := get[starlark.Value](c, "choices").(*starlark.List); ok && !c.allowed(v, l) {
		c.errorf("", "--set %s: %s is none of %s", name, v, l)
		return def
	}
	v.Freeze()
	c.run.Used[name] = v
	return v
}

func (c *call) allowed(v starlark.Value, choices *starlark.List) bool {
	return slices.ContainsFunc(slices.Collect(choices.Elements()), func(x starlark.Value) bool {
		same, err := starlark.Equal(x, v)
		return err == nil && same
	})
}

// ParamType is the param type of a value: "string" for None, "" where there
// is none.
func ParamType(v starlark.Value) string {
	switch v.(type) {
	case starlark.NoneType, starlark.String:
		return "string"
	case starlark.Int:
		return "int"
	case starlark.Float:
		return "float"
	case starlark.Bool:
		return "bool"
	case *starlark.List, starlark.Tuple:
		return "list"
	case *starlark.Dict:
		return "dict"
	}
	return ""
}

// Zero is a value of a param type, to go on with after an error.
func Zero(typ string) starlark.Value {
	switch typ {
	case "int":
		return starlark.MakeInt(0)
	case "float":
		return starlark.Float(0)
	case "bool":
		return starlark.False
	case "list":
		return starlark.NewList(nil)
	case "dict":
		return starlark.NewDict(0)
	}
	return starlark.String("")
}

// AsParam turns what was set from outside into a value of the type; text
// is read as the type's literal.
func AsParam(typ string, v starlark.Value) (starlark.Value, error) {
	s, text := v.(starlark.String)
	switch {
	case v == starlark.None, typ == ParamType(v):
		return v, nil
	case typ == "float" && !text:
		if f, ok := starlark.AsFloat(v); ok {
			return starlark.Float(f), nil
		}
	case typ == "string" && !text:
		switch v.(type) {
		case starlark.Int, starlark.Float, starlark.Bool:
			return starlark.String(v.String()), nil
		}
	case text:
		return parseParam(typ, strings.TrimSpace(string(s)))
	}
	return nil, fmt.Errorf("want %s, not %s", article(typ), show(v))
}

func parseParam(typ, s string) (starlark.Value, error) {
	switch typ {
	case "int":
		if n, err := strconv.ParseInt(s, 0, 64); err == nil {
			return starlark.MakeInt64(n), nil
		}
	case "float":
		if f, err := strconv.ParseFloat(s, 64); err == nil {
			return starlark.Float(f), nil
		}
	case "bool":
		switch strings.ToLower(s) {
		case "true", "yes", "on", "1":
			return starlark.True, nil
		case "false", "no", "off", "0":
			return starlark.False, nil
		}
	case "list", "dict":
		if v, err := FromJSON([]byte(s)); err == nil && ParamType(v) == typ {
			return v, nil
		}
		if typ == "list" && !strings.HasPrefix(s, "[") {
			var all []starlark.Value
			for _, e := range strings.Split(s, ",") {
				if e = strings.TrimSpace(e); e != "" {
					all = append(all, starlark.String(e))
				}
			}
			return starlark.NewList(all), nil
		}
	}
	return nil, fmt.Errorf("want %s, not %q", article(typ), s)
}

func article(typ string) string {
	if typ == "int" {
		return "an int"
	}
	return "a " + typ
}

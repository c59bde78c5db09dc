package builtins

import (
	"fmt"
	"hash/fnv"
	"maps"
	"slices"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
)

// Value is what the constructors other than service and job return:
// immutable, with a few attributes, and aware of where it was made.
type Value struct {
	kind, name string
	at         syntax.Position
	spec       any // the proto message it stands for
	of         starlark.Value
	attrs      starlark.StringDict
}

var _ starlark.HasAttrs = (*Value)(nil)

func (v *Value) String() string        { return fmt.Sprintf("<%s %s>", v.kind, v.name) }
func (v *Value) Type() string          { return v.kind }
func (v *Value) Freeze()               {}
func (v *Value) Truth() starlark.Bool  { return true }
func (v *Value) Hash() (uint32, error) { return hashText(v.kind + v.name), nil }
func (v *Value) AttrNames() []string   { return slices.Sorted(maps.Keys(v.attrs)) }

// Attr implements starlark.HasAttrs.
func (v *Value) Attr(name string) (starlark.Value, error) { return v.attrs[name], nil }

func hashText(s string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(s))
	return h.Sum32()
}

// made makes the value of a call and, where name is set, remembers it until
// a stack reaches it.
func (c *call) made(kind, name string, spec any, attrs starlark.StringDict) *Value {
	v := &Value{kind: kind, name: name, at: c.at, spec: spec, attrs: attrs}
	switch kind {
	case "network", "volume", "secret", "config":
		c.run.made = append(c.run.made, named{v, kind, name, c.at})
	}
	return v
}

// kindOf reads values that the constructor of that name made.
func kindOf(kind string) Kind {
	return Kind{Name: kind, Stub: kind + "_", read: func(v starlark.Value) (any, error) {
		if x, ok := v.(*Value); ok && x.kind == kind {
			return x, nil
		}
		hint := ""
		if s, ok := v.(starlark.String); ok {
			hint = fmt.Sprintf("make one with %s(%s, ...)", kind, s)
		}
		return nil, wrongHint("a "+kind, v, hint)
	}}
}

package builtins

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	stime "go.starlark.net/lib/time"
	"go.starlark.net/starlark"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Kind reads a Starlark value as one sort of Go value. Name is for people,
// Stub is its Python type.
type Kind struct {
	Name, Stub string
	Choices    []string
	read       func(starlark.Value) (any, error)
}

// hinted is an error about a value, worded to follow its parameter's name,
// with a hint.
type hinted struct{ text, hint string }

func (h hinted) Error() string { return h.text }

func wrong(want string, v starlark.Value) error { return wrongHint(want, v, "") }

func wrongHint(want string, v starlark.Value, hint string) error {
	return hinted{fmt.Sprintf(" must be %s, not %s", want, show(v)), hint}
}

// show renders a value briefly for an error: its text and its type.
func show(v starlark.Value) string {
	switch v := v.(type) {
	case starlark.NoneType:
		return "None"
	case starlark.String, starlark.Int, starlark.Float, starlark.Bool:
		s := v.String()
		if len(s) > 40 {
			s = s[:37] + "..."
		}
		return s + " (" + v.Type() + ")"
	}
	return "a " + v.Type()
}

var (
	textKind = Kind{Name: "string", Stub: "str", read: func(v starlark.Value) (any, error) {
		if s, ok := v.(starlark.String); ok {
			return string(s), nil
		}
		if s, ok := v.(*Value); ok && s.kind == "secret" {
			return nil, wrongHint("a string", v, "a secret has no text; give the program its .path")
		}
		return nil, wrong("a string", v)
	}}
	// scalarKind reads what becomes text: env and label values, arguments.
	scalarKind = Kind{Name: "string", Stub: "str | int | float | bool", read: func(v starlark.Value) (any, error) {
		switch v := v.(type) {
		case starlark.String:
			return string(v), nil
		case starlark.Int, starlark.Float:
			return v.String(), nil
		case starlark.Bool:
			return strconv.FormatBool(bool(v)), nil
		}
		return textKind.read(v)
	}}
	boolKind = Kind{Name: "bool", Stub: "bool", read: func(v starlark.Value) (any, error) {
		if b, ok := v.(starlark.Bool); ok {
			return bool(b), nil
		}
		return nil, wrong("True or False", v)
	}}
	durationKind = Kind{Name: "duration", Stub: "str", read: readDuration}
	sizeKind     = Kind{Name: "size", Stub: "str | int", read: readSize}
	cpusKind     = Kind{Name: "number of CPUs", Stub: "float", read: readCPUs}
	argvKind     = list(scalarKind)
	anyKind      = Kind{Name: "value", Stub: "Any", read: func(v starlark.Value) (any, error) { return v, nil }}
)

func intKind(min, max int) Kind {
	want := fmt.Sprintf("an int of %d or more", min)
	if max < math.MaxInt32 {
		want = fmt.Sprintf("an int from %d to %d", min, max)
	}
	return Kind{Name: "int", Stub: "int", read: func(v starlark.Value) (any, error) {
		n, ok := v.(starlark.Int)
		if !ok {
			return nil, wrong("an int", v)
		}
		i, ok := n.Int64()
		if !ok || i < int64(min) || i > int64(max) {
			return nil, hinted{fmt.Sprintf(" must be %s, not %s", want, v), ""}
		}
		return int(i), nil
	}}
}

var (
	countKind = intKind(0, math.MaxInt32)
	portKind_ = intKind(1, 65535)
)

func ratioKind() Kind {
	return Kind{Name: "float", Stub: "float", read: func(v starlark.Value) (any, error) {
		f, ok := starlark.AsFloat(v)
		if !ok {
			return nil, wrong("a number from 0 to 1", v)
		}
		if !(f >= 0 && f <= 1) {
			return nil, hinted{fmt.Sprintf(" must be a number from 0 to 1, not %v", v), ""}
		}
		return f, nil
	}}
}

func readDuration(v starlark.Value) (any, error) {
	if d, ok := v.(stime.Duration); ok && d >= 0 {
		return durationpb.New(time.Duration(d)), nil
	}
	s, ok := v.(starlark.String)
	if !ok {
		hint := ""
		if n, ok := v.(starlark.Int); ok {
			hint = fmt.Sprintf("write \"%ss\" for seconds", n)
		}
		return nil, wrongHint(`a duration such as "10s"`, v, hint)
	}
	d, err := time.ParseDuration(string(s))
	if err != nil || d < 0 {
		return nil, wrong(`a duration such as "500ms", "10s", "5m" or "1h30m"`, v)
	}
	return durationpb.New(d), nil
}

var sizeUnits = []struct {
	suffix string
	bytes  float64
}{{"Ki", 1 << 10}, {"Mi", 1 << 20}, {"Gi", 1 << 30}, {"Ti", 1 << 40}}

func readSize(v starlark.Value) (any, error) {
	const want = `a size such as "256Mi" or a number of bytes`
	if n, ok := v.(starlark.Int); ok {
		if i, ok := n.Int64(); ok && i >= 0 {
			return i, nil
		}
		return nil, wrong(want, v)
	}
	s, ok := v.(starlark.String)
	if !ok {
		return nil, wrong(want, v)
	}
	for _, u := range sizeUnits {
		if num, ok := strings.CutSuffix(string(s), u.suffix); ok {
			f, err := strconv.ParseFloat(num, 64)
			if err == nil && f >= 0 && f*u.bytes <= 1<<60 {
				return int64(f * u.bytes), nil
			}
		}
	}
	hint := ""
	if num := strings.TrimRight(string(s), "KMGTkmgtiIbB "); num != "" && len(num) < len(s) {
		if unit := strings.ToUpper(string(s[len(num)])); strings.Contains("KMGT", unit) {
			hint = fmt.Sprintf("write %q", num+unit+"i")
		}
	}
	return nil, wrongHint(`a size in Ki, Mi, Gi or Ti, such as "256Mi"`, v, hint)
}

func readCPUs(v starlark.Value) (any, error) {
	if s, ok := v.(starlark.String); ok {
		if num, ok := strings.CutSuffix(string(s), "m"); ok {
			if n, err := strconv.ParseInt(num, 10, 32); err == nil && n > 0 {
				return n, nil
			}
		}
	} else if f, ok := starlark.AsFloat(v); ok && f >= 0.001 && f <= 1e6 {
		return int64(math.Round(f * 1000)), nil
	}
	return nil, wrong(`a number of CPUs such as 0.5, 2 or "500m"`, v)
}

func choice(of ...string) Kind {
	return Kind{Name: "string", Stub: "str", Choices: of, read: func(v starlark.Value) (any, error) {
		s, ok := v.(starlark.String)
		if ok && slices.Contains(of, string(s)) {
			return string(s), nil
		}
		quoted := make([]string, len(of))
		for i, o := range of {
			quoted[i] = strconv.Quote(o)
		}
		return nil, wrongHint(strings.Join(quoted, " or "), v, Suggest(string(s), of))
	}}
}

// list reads a list or tuple; read as []T of its elements' Go values ([]any
// except for strings).
func list(of Kind) Kind {
	return Kind{Name: "list of " + of.Name, Stub: "list[" + of.Stub + "]", Choices: of.Choices, read: func(v starlark.Value) (any, error) {
		var n int
		var at func(int) starlark.Value
		switch v := v.(type) {
		case *starlark.List:
			n, at = v.Len(), v.Index
		case starlark.Tuple:
			n, at = v.Len(), v.Index
		default:
			hint := ""
			if _, err := of.read(v); err == nil {
				hint = "put it in [ ]"
			}
			return nil, wrongHint("a list", v, hint)
		}
		if n == 0 {
			return nil, nil
		}
		all := make([]any, n)
		for i := range n {
			x, err := of.read(at(i))
			if err != nil {
				return nil, within(fmt.Sprintf("[%d]", i), err)
			}
			all[i] = x
		}
		return all, nil
	}}
}

// dict reads a dict as map[string]string; entries that are None are left out.
func dict(of Kind) Kind {
	return Kind{Name: "dict of " + of.Name, Stub: "dict[str, " + of.Stub + "]", read: func(v starlark.Value) (any, error) {
		d, ok := v.(*starlark.Dict)
		if !ok {
			return nil, wrong("a dict", v)
		}
		if d.Len() == 0 {
			return nil, nil
		}
		all := make(map[string]string, d.Len())
		for k, e := range d.Entries() {
			name, ok := k.(starlark.String)
			if !ok {
				return nil, wrong("a dict with strings as keys", k)
			}
			if e == starlark.None {
				continue
			}
			x, err := of.read(e)
			if err != nil {
				return nil, within("["+name.String()+"]", err)
			}
			all[string(name)] = x.(string)
		}
		return all, nil
	}}
}

func within(where string, err error) error {
	h, _ := err.(hinted)
	return hinted{where + err.Error(), h.hint}
}

// strings_ turns a list that was read into []string.
func (c *call) strings(name string) []string {
	all, _ := c.values[c.at_(name)].([]any)
	if len(all) == 0 {
		return nil
	}
	s := make([]string, len(all))
	for i, x := range all {
		s[i] = x.(string)
	}
	return s
}

func (c *call) dict(name string) map[string]string { return get[map[string]string](c, name) }

func (c *call) duration(name string) *durationpb.Duration {
	return get[*durationpb.Duration](c, name)
}

package builtins

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strings"

	"go.starlark.net/starlark"
)

// jsonOf is the one JSON text of a value: keys sorted, and a float told from
// an int. Errors are worded to follow a name.
func jsonOf(v starlark.Value, depth int) (string, error) {
	if depth > 32 {
		return "", hinted{" is nested too deeply", ""}
	}
	switch v := v.(type) {
	case starlark.NoneType:
		return "null", nil
	case starlark.Bool:
		if v {
			return "true", nil
		}
		return "false", nil
	case starlark.Int:
		if _, ok := v.Int64(); !ok {
			return "", hinted{fmt.Sprintf(" is too large an int: %s", v), ""}
		}
		return v.String(), nil
	case starlark.Float:
		if math.IsInf(float64(v), 0) || math.IsNaN(float64(v)) {
			return "", hinted{" is " + v.String() + ", which JSON doesn't have", ""}
		}
		return v.String(), nil
	case starlark.String:
		return quoteJSON(string(v)), nil
	case *starlark.List:
		return jsonList(v, depth)
	case starlark.Tuple:
		return jsonList(v, depth)
	case *starlark.Dict:
		all := map[string]string{}
		for k, e := range v.Entries() {
			name, ok := k.(starlark.String)
			if !ok {
				return "", wrong("a dict with strings as keys", k)
			}
			text, err := jsonOf(e, depth+1)
			if err != nil {
				return "", within("["+name.String()+"]", err)
			}
			all[string(name)] = text
		}
		var b strings.Builder
		b.WriteByte('{')
		for i, k := range sortedKeys(all) {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(quoteJSON(k) + ":" + all[k])
		}
		return b.String() + "}", nil
	}
	hint := "make it in a function of your own, def NAME(r): return STRATEGY(r, ...), and give that as strategy"
	return "", wrongHint("what JSON can hold (None, bool, int, float, string, list or dict)", v, hint)
}

func jsonList(v starlark.Indexable, depth int) (string, error) {
	parts := make([]string, v.Len())
	for i := range parts {
		var err error
		if parts[i], err = jsonOf(v.Index(i), depth+1); err != nil {
			return "", within(fmt.Sprintf("[%d]", i), err)
		}
	}
	return "[" + strings.Join(parts, ",") + "]", nil
}

func quoteJSON(s string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.Encode(s) // a string can always be
	return strings.TrimSuffix(b.String(), "\n")
}

package builtins

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"go.starlark.net/starlark"
)

// FromJSON reads one JSON value; whole numbers become ints.
func FromJSON(text []byte) (starlark.Value, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var x any
	if err := d.Decode(&x); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is more after the value")
	}
	return FromGo(x)
}

// FromGo turns the values that JSON has in Go into Starlark's.
func FromGo(x any) (starlark.Value, error) {
	switch x := x.(type) {
	case nil:
		return starlark.None, nil
	case starlark.Value:
		return x, nil
	case bool:
		return starlark.Bool(x), nil
	case string:
		return starlark.String(x), nil
	case int:
		return starlark.MakeInt(x), nil
	case int64:
		return starlark.MakeInt64(x), nil
	case float64:
		return starlark.Float(x), nil
	case json.Number:
		if n, err := x.Int64(); err == nil {
			return starlark.MakeInt64(n), nil
		}
		f, err := x.Float64()
		return starlark.Float(f), err
	case []string:
		l := starlark.NewList(nil)
		for _, e := range x {
			l.Append(starlark.String(e))
		}
		return l, nil
	case []any:
		l := starlark.NewList(nil)
		for _, e := range x {
			v, err := FromGo(e)
			if err != nil {
				return nil, err
			}
			l.Append(v)
		}
		return l, nil
	case map[string]any:
		d := starlark.NewDict(len(x))
		for _, k := range sortedKeys(x) {
			v, err := FromGo(x[k])
			if err != nil {
				return nil, err
			}
			d.SetKey(starlark.String(k), v)
		}
		return d, nil
	}
	return nil, fmt.Errorf("can't use a %T as a value", x)
}

// ToGo is the inverse of FromGo for what a param can hold.
func ToGo(v starlark.Value) any {
	switch v := v.(type) {
	case starlark.Bool:
		return bool(v)
	case starlark.String:
		return string(v)
	case starlark.Int:
		return json.Number(v.String())
	case starlark.Float:
		return float64(v)
	case *starlark.List, starlark.Tuple:
		all := []any{}
		for e := range starlark.Elements(v.(starlark.Iterable)) {
			all = append(all, ToGo(e))
		}
		return all
	case *starlark.Dict:
		m := map[string]any{}
		for k, e := range v.Entries() {
			key, _ := starlark.AsString(k)
			m[key] = ToGo(e)
		}
		return m
	}
	return nil
}

package builtins

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"go.starlark.net/starlark"
	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"
)

func TestEveryTableIsDocumented(t *testing.T) {
	Predeclared()
	for _, f := range Funcs {
		if f.Doc == "" || f.Returns == "" {
			t.Errorf("%s: no doc or result", f.Name)
		}
		named := false
		for _, p := range f.Params {
			if p.Doc == "" || p.Kind.Name == "" || p.Kind.Stub == "" {
				t.Errorf("%s(%s): no doc, or its kind has no name", f.Name, p.Name)
			}
			if p.Position && named {
				t.Errorf("%s(%s): positional after keyword-only", f.Name, p.Name)
			}
			named = named || !p.Position
			if _, both := f.Elsewhere[p.Name]; both {
				t.Errorf("%s takes %s and refuses it", f.Name, p.Name)
			}
		}
	}
}

func TestKinds(t *testing.T) {
	text := func(s string) starlark.Value { return starlark.String(s) }
	for _, c := range []struct {
		kind Kind
		in   starlark.Value
		want any // nil: an error
	}{
		{sizeKind, text("256Mi"), int64(256 << 20)},
		{sizeKind, text("1.5Ki"), int64(1536)},
		{sizeKind, starlark.MakeInt(7), int64(7)},
		{sizeKind, text("256M"), nil},
		{sizeKind, text("-1Mi"), nil},
		{sizeKind, starlark.MakeInt(-1), nil},
		{cpusKind, starlark.Float(0.5), int64(500)},
		{cpusKind, starlark.MakeInt(2), int64(2000)},
		{cpusKind, text("250m"), int64(250)},
		{cpusKind, starlark.MakeInt(0), nil},
		{ratioKind(), starlark.MakeInt(1), 1.0},
		{ratioKind(), starlark.Float(1.1), nil},
		{parallelismKind, text("25%"), "25%"},
		{parallelismKind, starlark.MakeInt(3), "3"},
		{parallelismKind, text("0%"), nil},
		{parallelismKind, text("101%"), nil},
		{shareKind, starlark.MakeInt(0), "0"},
		{shareKind, text("0%"), "0%"},
		{shareKind, text("75%"), "75%"},
		{shareKind, starlark.MakeInt(-1), nil},
		{shareKind, text("7.5%"), nil},
		{numberKind, starlark.MakeInt(2), 2.0},
		{numberKind, starlark.Float(math.Inf(1)), nil},
		{webKind, text("https://x:1/y"), "https://x:1/y"},
		{webKind, text("${orch:url:http:web:80}/y"), "${orch:url:http:web:80}/y"},
		{webKind, text("http://${orch:url:host:web:0}/y"), "http://${orch:url:host:web:0}/y"},
		{webKind, text("${orch:url:tcp:web:80}"), nil},
		{webKind, text("//x/y"), nil},
		{webKind, text("http://"), nil},
		{nodeKeyKind, text("node.labels.zone"), "node.labels.zone"},
		{nodeKeyKind, text("zone"), nil},
		{slotsOrGroupKind, text("canary"), "canary"},
		{slotsOrGroupKind, text("web.1"), nil},
		{jobKind, text("migrate"), "migrate"},
		{jobKind, text("Migrate"), nil},
		{ulimitKind, text("10:20"), "10:20"},
		{ulimitKind, text("10:"), nil},
		{gpusKind, text("all"), "all"},
		{gpusKind, starlark.MakeInt(0), nil},
		{cronKind, text("0 3 * * 1-5"), "0 3 * * 1-5"},
		{cronKind, text("*/5 * * * *"), "*/5 * * * *"},
		{cronKind, text("0 24 * * *"), nil},
		{cronKind, text("0 3 * *"), nil},
		{scalarKind, starlark.True, "true"},
		{boolKind, starlark.MakeInt(1), nil},
		{textKind, starlark.MakeInt(1), nil},
	} {
		got, err := c.kind.read(c.in)
		if (err == nil) != (c.want != nil) || err == nil && got != c.want {
			t.Errorf("%s of %s: got %v, %v; want %v", c.kind.Name, c.in, got, err, c.want)
		}
	}
}

func TestDurationsRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		d := time.Duration(rapid.Int64Range(0, 1<<50).Draw(rt, "d"))
		got, err := readDuration(starlark.String(d.String()))
		if err != nil || got.(*durationpb.Duration).AsDuration() != d {
			rt.Errorf("%v: %v, %v", d, got, err)
		}
	})
}

func TestSuggest(t *testing.T) {
	known := []string{"image", "replicas", "stop_grace"}
	for word, want := range map[string]string{"imgae": "image", "replica": "replicas", "stop_grace_": "stop_grace", "xyzzy": "", "": ""} {
		got := Suggest(word, known)
		if want == "" && got != "" || want != "" && !strings.Contains(got, want) {
			t.Errorf("%q: %q", word, got)
		}
	}
}

func TestJSONRoundTrips(t *testing.T) {
	v, err := FromJSON([]byte(`{"a": [1, 2.5, "x", true, null], "b": {}}`))
	if err != nil {
		t.Fatal(err)
	}
	again, err := FromGo(ToGo(v))
	if same, _ := starlark.Equal(v, again); err != nil || !same {
		t.Errorf("got %s of %s: %v", again, v, err)
	}
}

// Params keep their types through JSON, ints apart from floats.
func TestParamsAreCanonicalJSON(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		v := randomValue(rt, 3)
		text, err := jsonOf(v, 0)
		if err != nil {
			rt.Fatal(err)
		}
		again, err := FromJSON([]byte(text))
		if err != nil {
			rt.Fatalf("%s: %v", text, err)
		}
		if second, err := jsonOf(again, 0); err != nil || second != text {
			rt.Fatalf("%s became %s, %v", text, second, err)
		}
		if same, err := starlark.Equal(v, again); err != nil || !same || v.String() != again.String() {
			rt.Fatalf("%s became %s", v, again)
		}
	})
}

func randomValue(t *rapid.T, depth int) starlark.Value {
	text := rapid.StringMatching("[a-zé<\"\n]{0,4}")
	switch kind := rapid.IntRange(0, 6).Draw(t, "kind"); {
	case kind == 0:
		return starlark.None
	case kind == 1:
		return starlark.Bool(rapid.Bool().Draw(t, "bool"))
	case kind == 2:
		return starlark.MakeInt64(rapid.Int64().Draw(t, "int"))
	case kind == 3:
		return starlark.Float(rapid.Float64().Draw(t, "float"))
	case kind == 4 || depth == 0:
		return starlark.String(text.Draw(t, "text"))
	case kind == 5:
		var all []starlark.Value
		for range rapid.IntRange(0, 3).Draw(t, "len") {
			all = append(all, randomValue(t, depth-1))
		}
		return starlark.NewList(all)
	}
	d := starlark.NewDict(0)
	names := rapid.SliceOfNDistinct(text, 0, 3, rapid.ID[string]).Draw(t, "keys")
	slices.Sort(names)
	for _, k := range names {
		d.SetKey(starlark.String(k), randomValue(t, depth-1))
	}
	return d
}

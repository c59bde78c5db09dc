package builtins

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"

	sjson "go.starlark.net/lib/json"
	smath "go.starlark.net/lib/math"
	stime "go.starlark.net/lib/time"
	"go.starlark.net/starlark"
	"go.starlark.net/starlarkstruct"
)

var structFunc = &Func{Name: "struct", Doc: "An immutable value with the keywords as attributes.", Returns: "struct", Rest: "the attributes",
	Example: `struct(host = "db", port = 5432)`,
	build: func(c *call) (starlark.Value, error) {
		return starlarkstruct.FromKeywords(starlarkstruct.Default, c.rest), nil
	}}

var warnFunc = &Func{Name: "warn", Doc: "Shows a warning with this place; the run goes on.", Returns: "None",
	Params:  []Param{{Name: "message", Kind: scalarKind, Position: true, Doc: "What to say."}},
	Example: `warn("no TLS: for trials only")`,
	build: func(c *call) (starlark.Value, error) {
		c.run.Warnings = append(c.run.Warnings, Problem{Pos: c.at, Message: c.str("message")})
		return starlark.None, nil
	}}

// ErrFail marks the error of a playbook's own fail().
type ErrFail struct{ Message string }

func (e ErrFail) Error() string { return e.Message }

var failFunc = &Func{Name: "fail", Doc: "Ends the run with an error. Several arguments are joined by blanks.", Returns: "nothing", Rest: "",
	Params:  []Param{{Name: "message", Kind: scalarKind, Position: true, Doc: "What to say."}},
	Example: `if replicas % 2 == 0: fail("replicas must be odd, not", replicas)`,
}

func failBuiltin() *starlark.Builtin {
	failFunc.init()
	return starlark.NewBuiltin("fail", func(_ *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
		if len(kwargs) > 0 {
			return nil, errors.New("fail takes only what to say")
		}
		words := make([]string, len(args))
		for i, a := range args {
			if s, ok := starlark.AsString(a); ok {
				words[i] = s
			} else {
				words[i] = a.String()
			}
		}
		return nil, ErrFail{strings.Join(words, " ")}
	})
}

var composeFunc = &Func{Name: "compose", Doc: "Reads a Compose file. Not supported yet.", Returns: "struct of services",
	Params: []Param{{Name: "path", Kind: textKind, Position: true, Doc: "The Compose file."}},
	build: func(c *call) (starlark.Value, error) {
		return nil, ErrFail{"compose: reading Compose files is not supported yet; write the services with service()"}
	}}

// timeModule is durations alone: what tells the time or knows zones would
// make runs differ between machines.
var timeModule = func() *starlarkstruct.Module {
	m := &starlarkstruct.Module{Name: "time", Members: starlark.StringDict{}}
	for _, name := range []string{"parse_duration", "nanosecond", "microsecond", "millisecond", "second", "minute", "hour"} {
		m.Members[name] = stime.Module.Members[name]
	}
	return m
}()

// Funcs are the tables of all builtins, in the order of the manual.
var Funcs = slices.Concat(
	[]*Func{stackFunc, serviceFunc, urlFunc, jobFunc, portFunc, networkFunc, volumeFunc, mountFunc, bindFunc, tmpfsFunc, secretFunc, configFunc},
	healthFuncs,
	[]*Func{resourcesFunc, restartFunc},
	dependencyFuncs,
	[]*Func{rolloutFunc},
	probeFuncs,
	rFuncs(),
	[]*Func{paramFunc, fileFunc, templateFunc, composeFunc, structFunc, warnFunc, failFunc},
)

// Predeclared is the frozen environment that all playbooks share.
var Predeclared = sync.OnceValue(func() starlark.StringDict {
	env := starlark.StringDict{
		"param": paramBuiltin(),
		"fail":  failBuiltin(),
		"json":  sjson.Module,
		"math":  smath.Module,
		"time":  timeModule,
	}
	modules := map[string]starlark.StringDict{}
	for _, f := range Funcs {
		if f.build == nil {
			continue
		}
		module, name, dotted := strings.Cut(f.Name, ".")
		if !dotted {
			env[f.Name] = f.builtin()
			continue
		}
		if modules[module] == nil {
			modules[module] = starlark.StringDict{}
		}
		modules[module][name] = f.builtin()
	}
	for name, members := range modules {
		env[name] = &starlarkstruct.Module{Name: name, Members: members}
	}
	env.Freeze()
	return env
})

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

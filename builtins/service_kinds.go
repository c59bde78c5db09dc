package builtins

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.starlark.net/starlark"
	"go.starlark.net/starlarkstruct"

	"orch/engine/api"
	"orch/engine/spec"
)

var constraintKind = Kind{Name: "constraint", Stub: "str", read: func(v starlark.Value) (any, error) {
	s, ok := v.(starlark.String)
	if !ok {
		return nil, wrong("a string", v)
	}
	if _, err := spec.ParseConstraint(string(s)); err != nil {
		return nil, hinted{text: ": " + err.Error()}
	}
	return string(s), nil
}}

var dependencyKind = Kind{Name: "dependency", Stub: "dependency_", read: func(v starlark.Value) (any, error) {
	if s, ok := v.(*Service); ok {
		return nil, wrongHint("started(x), ready(x) or done(job)", v, fmt.Sprintf("write ready(%s)", s.spec.Name))
	}
	return kindOf("dependency").read(v)
}}

var signals = strings.Fields("SIGHUP SIGINT SIGQUIT SIGABRT SIGKILL SIGUSR1 SIGUSR2 SIGPIPE SIGALRM SIGTERM SIGCONT SIGSTOP SIGTSTP SIGTTIN SIGTTOU SIGWINCH SIGPWR SIGRTMIN+3")

var signalKind = Kind{Name: "signal", Stub: "str", read: func(v starlark.Value) (any, error) {
	s, ok := v.(starlark.String)
	if ok && slices.Contains(signals, string(s)) {
		return string(s), nil
	}
	return nil, wrongHint(`a signal such as "SIGTERM"`, v, Suggest(string(s), signals))
}}

var gpusKind = Kind{Name: `"all" or int`, Stub: "str | int", read: func(v starlark.Value) (any, error) {
	if n, ok := v.(starlark.Int); ok && n.Sign() > 0 {
		return n.String(), nil
	}
	if v == starlark.String("all") {
		return "all", nil
	}
	return nil, wrong(`"all" or a number of GPUs`, v)
}}

var ulimitKind = Kind{Name: "limit", Stub: "int | str", read: func(v starlark.Value) (any, error) {
	switch v := v.(type) {
	case starlark.Int:
		return v.String(), nil
	case starlark.String:
		soft, hard, two := strings.Cut(string(v), ":")
		_, err := strconv.ParseInt(soft, 10, 64)
		if two && err == nil {
			_, err = strconv.ParseInt(hard, 10, 64)
		}
		if err == nil {
			return string(v), nil
		}
	}
	return nil, wrong(`a number or "soft:hard"`, v)
}}

var logKind = Kind{Name: "dict of driver and options", Stub: "dict[str, Any]", read: func(v starlark.Value) (any, error) {
	const want = `a dict such as {"driver": "json-file", "options": {"max-size": "10m"}}`
	fields := starlark.StringDict{}
	switch v := v.(type) {
	case *starlarkstruct.Struct:
		v.ToStringDict(fields)
	case *starlark.Dict:
		for k, x := range v.Entries() {
			name, _ := starlark.AsString(k)
			fields[name] = x
		}
	default:
		return nil, wrong(want, v)
	}
	log := &api.LogPolicy{}
	for name, x := range fields {
		switch name {
		case "driver":
			s, ok := starlark.AsString(x)
			if !ok || s == "" {
				return nil, within("[driver]", wrong("a string", x))
			}
			log.Driver = s
		case "options":
			o, err := dict(scalarKind).read(x)
			if err != nil {
				return nil, within("[options]", err)
			}
			log.Options, _ = o.(map[string]string)
		default:
			return nil, hinted{fmt.Sprintf(" has no key %q", name), Suggest(name, []string{"driver", "options"})}
		}
	}
	if log.Driver == "" {
		return nil, hinted{text: " must be " + want}
	}
	return log, nil
}}

var cronFields = []struct {
	name     string
	min, max int
}{{"minute", 0, 59}, {"hour", 0, 23}, {"day of month", 1, 31}, {"month", 1, 12}, {"day of week", 0, 7}}

// cronKind reads cron's five fields of numbers, *, lists, ranges and steps.
var cronKind = Kind{Name: "cron schedule", Stub: "str", read: func(v starlark.Value) (any, error) {
	s, ok := v.(starlark.String)
	if !ok {
		return nil, wrong(`a cron schedule such as "0 3 * * *"`, v)
	}
	fields := strings.Fields(string(s))
	if len(fields) != len(cronFields) {
		return nil, hinted{fmt.Sprintf(`: %s has %d fields, not the five minute, hour, day of month, month, day of week`, s, len(fields)), `"0 3 * * *" is every day at 03:00 UTC`}
	}
	for i, f := range fields {
		for _, part := range strings.Split(f, ",") {
			if !cronPart(part, cronFields[i].min, cronFields[i].max) {
				return nil, hinted{text: fmt.Sprintf(": %q is no %s (%d to %d, *, a-b, or */n)", part, cronFields[i].name, cronFields[i].min, cronFields[i].max)}
			}
		}
	}
	return strings.Join(fields, " "), nil
}}

func cronPart(s string, min, max int) bool {
	r, step, stepped := strings.Cut(s, "/")
	if n, err := strconv.Atoi(step); stepped && (err != nil || n < 1) {
		return false
	}
	if r == "*" {
		return true
	}
	from, to, ranged := strings.Cut(r, "-")
	a, err := strconv.Atoi(from)
	b := a
	if err == nil && ranged {
		b, err = strconv.Atoi(to)
	}
	return err == nil && min <= a && a <= b && b <= max
}

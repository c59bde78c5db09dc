package playtest

import (
	"context"
	"errors"
	"fmt"
	"regexp"

	"go.starlark.net/starlark"
	"go.starlark.net/starlarkstruct"
	"go.starlark.net/syntax"

	"orch/builtins"
	"orch/playbooks"
)

// tester is t under way.
type tester struct {
	ctx    context.Context
	module *playbooks.Module
	o      Options
}

type method func(thread *starlark.Thread, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error)

func newT(ctx context.Context, m *playbooks.Module, o Options) starlark.Value {
	t := &tester{ctx, m, o}
	members := starlark.StringDict{}
	for name, f := range map[string]method{"eq": t.eq, "ne": t.ne, "true": t.true, "contains": t.contains, "fails": t.fails, "plan": t.plan, "simulate": t.simulate} {
		members[name] = starlark.NewBuiltin("t."+name, func(thread *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
			v, err := f(thread, args, kwargs)
			if v == nil && err == nil {
				v = starlark.None
			}
			return v, err
		})
	}
	return &starlarkstruct.Module{Name: "t", Members: members}
}

func two(name string, args starlark.Tuple, kwargs []starlark.Tuple) (a, b starlark.Value, err error) {
	err = starlark.UnpackPositionalArgs(name, args, kwargs, 2, &a, &b)
	return a, b, err
}

func (*tester) eq(_ *starlark.Thread, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	got, want, err := two("t.eq", args, kwargs)
	if err != nil {
		return nil, err
	}
	same, err := starlark.Equal(got, want)
	if err == nil && !same {
		err = fmt.Errorf("t.eq: got %s, want %s", got, want)
	}
	return nil, err
}

func (*tester) ne(_ *starlark.Thread, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	a, b, err := two("t.ne", args, kwargs)
	if err != nil {
		return nil, err
	}
	same, err := starlark.Equal(a, b)
	if err == nil && same {
		err = fmt.Errorf("t.ne: both are %s", a)
	}
	return nil, err
}

func (*tester) true(_ *starlark.Thread, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var cond starlark.Value
	message := ""
	if err := starlark.UnpackArgs("t.true", args, kwargs, "cond", &cond, "message?", &message); err != nil {
		return nil, err
	}
	if cond.Truth() {
		return nil, nil
	}
	if message == "" {
		message = fmt.Sprintf("got %s", cond)
	}
	return nil, errors.New("t.true: " + message)
}

func (*tester) contains(_ *starlark.Thread, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	all, one, err := two("t.contains", args, kwargs)
	if err != nil {
		return nil, err
	}
	in, err := starlark.Binary(syntax.IN, one, all)
	if err == nil && !in.Truth() {
		err = fmt.Errorf("t.contains: %s is not in %s", one, all)
	}
	return nil, err
}

func (t *tester) fails(thread *starlark.Thread, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var fn starlark.Callable
	pattern := ""
	if err := starlark.UnpackArgs("t.fails", args, kwargs, "fn", &fn, "regex?", &pattern); err != nil {
		return nil, err
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, fmt.Errorf("t.fails: %w", err)
	}
	message := t.module.Attempt(thread, fn)
	switch {
	case message == "":
		return nil, errors.New("t.fails: it didn't fail")
	case !re.MatchString(message):
		return nil, fmt.Errorf("t.fails: the error doesn't match %q: %s", pattern, message)
	}
	return starlark.String(message), nil
}

func (t *tester) plan(_ *starlark.Thread, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	path := ""
	var params *starlark.Dict
	if err := starlark.UnpackArgs("t.plan", args, kwargs, "path", &path, "params?", &params); err != nil {
		return nil, err
	}
	file, err := t.module.Path(path)
	if err != nil {
		return nil, fmt.Errorf("t.plan: %q: %w", path, err)
	}
	given := map[string]any{}
	if params != nil {
		for k, v := range params.Entries() {
			name, ok := starlark.AsString(k)
			if !ok {
				return nil, fmt.Errorf("t.plan: params: %s is not a name", k)
			}
			given[name] = v
		}
	}
	r, err := playbooks.Eval(t.ctx, playbooks.Options{Path: file, Params: given, CacheDir: t.o.CacheDir})
	if err != nil {
		return nil, err
	}
	return t.planValue(r)
}

func (t *tester) simulate(*starlark.Thread, starlark.Tuple, []starlark.Tuple) (starlark.Value, error) {
	return nil, errors.New("t.simulate comes with journaled strategies and is not supported yet")
}

func (t *tester) planValue(r *playbooks.Result) (starlark.Value, error) {
	services := starlark.StringDict{}
	list := starlark.NewList(nil)
	var names []string
	for _, s := range r.Spec.Services {
		v := serviceStruct(s)
		services[s.Name] = v
		names = append(names, s.Name)
		list.Append(v)
	}
	changes := t.o.Changes
	if changes == nil {
		changes = fromNothing
	}
	all := starlark.NewList(nil)
	for _, c := range changes(r.Spec) {
		all.Append(messageStruct(c.ProtoReflect()))
	}
	warnings := starlark.NewList(nil)
	for _, w := range r.Warnings {
		warnings.Append(starlark.String(w.Message))
	}
	stack := messageStruct(r.Spec.ProtoReflect())
	members := starlark.StringDict{}
	stack.ToStringDict(members)
	members["services"], members["changes"], members["warnings"] = list, all, warnings
	members["service"] = starlark.NewBuiltin("service", func(_ *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
		name := ""
		if err := starlark.UnpackPositionalArgs("service", args, kwargs, 1, &name); err != nil {
			return nil, err
		}
		if s, ok := services[name]; ok {
			return s, nil
		}
		err := fmt.Errorf("the plan has no service %q", name)
		if hint := builtins.Suggest(name, names); hint != "" {
			err = fmt.Errorf("%w; %s", err, hint)
		}
		return nil, err
	})
	p := starlarkstruct.FromStringDict(starlark.String("plan"), members)
	p.Freeze()
	return p, nil
}

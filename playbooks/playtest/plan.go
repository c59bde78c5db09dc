package playtest

import (
	"fmt"
	"path/filepath"
	"strings"

	"go.starlark.net/starlark"
	"go.starlark.net/starlarkstruct"

	"orch/playbooks"
)

var planMethod = &method{
	name: "t.plan", returns: "plan",
	params: []param{
		{name: "path", doc: "The playbook, as load() would name it.", position: true},
		{name: "params", text: "{}", doc: "Its params, by name.", position: true},
	},
	doc: `Evaluates a playbook, without a cluster.
The plan has the fields of the stack, .service(NAME) and .services with the fields of service(), .changes (those of a first run) and .warnings.`,
	example: `t.eq(t.plan("web.star", params = {"port": 9000}).service("web").replicas, 3)`,
	do:      (*tester).plan,
}

func (t *tester) plan(c *call) (starlark.Value, error) {
	r, err := t.eval(c, "params")
	if err != nil {
		return nil, err
	}
	return t.planValue(r)
}

// eval evaluates the playbook at the call's path with the params in one of
// its arguments.
func (t *tester) eval(c *call, params string) (*playbooks.Result, error) {
	path, err := c.text("path")
	if err != nil {
		return nil, err
	}
	file, err := t.module.Path(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %q: %w", c.method.name, path, err)
	}
	named, err := c.named(params)
	if err != nil {
		return nil, err
	}
	given := map[string]any{}
	for name, v := range named {
		given[name] = v
	}
	r, err := playbooks.Eval(t.ctx, playbooks.Options{Path: file, Params: given, CacheDir: t.o.CacheDir})
	if err == nil && t.o.Cover != nil {
		t.o.Cover.Found(filepath.ToSlash(strings.TrimSuffix(file, filepath.FromSlash(r.Bundle.Root))), r.Bundle)
	}
	return r, err
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
		return nil, hinted(fmt.Errorf("the plan has no service %q", name), name, names)
	})
	p := starlarkstruct.FromStringDict(starlark.String("plan"), members)
	p.Freeze()
	return p, nil
}

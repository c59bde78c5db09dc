package builtins

import (
	"path"

	"go.starlark.net/starlark"

	"orch/engine/api"
)

var volumeFunc = &Func{
	Name:    "volume",
	Doc:     "Storage that outlives tasks. A local volume keeps its slot on the node where it is.",
	Returns: "volume",
	Params: []Param{
		{Name: "name", Kind: textKind, Position: true, Doc: "Name in the stack."},
		{Name: "driver", Kind: textKind, Default: `"local"`, Doc: "Volume driver of the runtime."},
		{Name: "options", Kind: dict(scalarKind), Default: "{}", Doc: "Options of the driver."},
		{Name: "external", Kind: boolKind, Default: "False", Doc: "It exists already; orch neither makes nor removes it."},
		{Name: "on_remove", Kind: choice("keep", "delete"), Default: `"keep"`, Doc: "What happens to it when the stack is removed."},
	},
	Example: `data = volume("influx-data")`,
	build: func(c *call) (starlark.Value, error) {
		v := &api.VolumeSpec{Name: c.objectName(), Driver: c.str("driver"), Options: c.dict("options"), External: c.bool("external"),
			OnRemove: c.str("on_remove"), Origin: c.origin()}
		if v.External && v.OnRemove == "delete" {
			c.errorf("on_remove", "orch never deletes an external volume")
		}
		return c.made("volume", v.Name, v, starlark.StringDict{"name": starlark.String(v.Name)}), nil
	},
}

var mountFunc = &Func{
	Name:    "mount",
	Doc:     "Mounts a volume into a task.",
	Returns: "mount",
	Params: []Param{
		{Name: "volume", Kind: Kind{Name: "volume or name", Stub: "volume_ | str", read: func(v starlark.Value) (any, error) {
			if x, ok := v.(*Value); ok && x.kind == "volume" {
				return v, nil
			}
			if _, ok := v.(starlark.String); ok {
				return v, nil
			}
			return nil, wrong("a volume or a volume's name", v)
		}}, Position: true, Doc: "The volume; a name stands for volume(name)."},
		{Name: "target", Kind: textKind, Position: true, Doc: "Absolute path in the task."},
		{Name: "read_only", Kind: boolKind, Default: "False", Doc: "The task may not write."},
	},
	Example: `mount(data, "/var/lib/influxdb")`,
	build: func(c *call) (starlark.Value, error) {
		var vol *Value
		switch v := c.values[0].(type) {
		case *Value:
			vol = v
		case starlark.String:
			if !objectName.MatchString(string(v)) {
				c.errorf("volume", "volume name %q: use letters, digits, '.', '_' and '-' (a path of the host is bind(path, target))", string(v))
			}
			vol = c.made("volume", string(v), &api.VolumeSpec{Name: string(v), Driver: "local", OnRemove: "keep", Origin: c.origin()}, nil)
		}
		m := &api.Mount{Type: "volume", Target: c.target(), ReadOnly: c.bool("read_only"), Origin: c.origin()}
		out := c.made("mount", m.Target, m, nil)
		if vol != nil {
			m.Source = vol.name
			out.of = vol
		}
		return out, nil
	},
}

var bindFunc = &Func{
	Name:    "bind",
	Doc:     "Mounts a path of the host into a task.",
	Returns: "mount",
	Params: []Param{
		{Name: "host_path", Kind: textKind, Position: true, Doc: "Absolute path on the node."},
		{Name: "target", Kind: textKind, Position: true, Doc: "Absolute path in the task."},
		{Name: "read_only", Kind: boolKind, Default: "False", Doc: "The task may not write."},
	},
	Example: `bind("/var/run/docker.sock", "/var/run/docker.sock", read_only = True)`,
	build: func(c *call) (starlark.Value, error) {
		m := &api.Mount{Type: "bind", Source: c.str("host_path"), Target: c.target(), ReadOnly: c.bool("read_only"), Origin: c.origin()}
		if c.has("host_path") && !path.IsAbs(m.Source) {
			c.errorf("host_path", "host_path must be absolute, not %q: it is a path on whichever node runs the task", m.Source)
		}
		return c.made("mount", m.Target, m, nil), nil
	},
}

var tmpfsFunc = &Func{
	Name:    "tmpfs",
	Doc:     "Mounts memory into a task; it is empty at each start.",
	Returns: "mount",
	Params: []Param{
		{Name: "target", Kind: textKind, Position: true, Doc: "Absolute path in the task."},
		{Name: "size", Kind: sizeKind, Default: "None", Doc: "Limit; None means the runtime's."},
	},
	Example: `tmpfs("/tmp", size = "64Mi")`,
	build: func(c *call) (starlark.Value, error) {
		m := &api.Mount{Type: "tmpfs", Target: c.target(), Size: get[int64](c, "size"), Origin: c.origin()}
		return c.made("mount", m.Target, m, nil), nil
	},
}

func (c *call) target() string {
	t := c.str("target")
	if c.has("target") && !path.IsAbs(t) {
		c.errorf("target", "target must be an absolute path in the task, not %q", t)
	}
	return t
}

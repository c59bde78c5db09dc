package builtins

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"text/template"

	"go.starlark.net/starlark"
	"go.starlark.net/starlarkstruct"

	"orch/engine/api"
)

// MaxContent is how large a config or a filled-in template may be, in bytes.
const MaxContent = 1 << 20

var fileFunc = &Func{
	Name:    "file",
	Doc:     "Returns a file's text. The file becomes part of the bundle.",
	Returns: "str",
	Params: []Param{
		{Name: "path", Kind: textKind, Position: true, Doc: `Path from the playbook's file, or "//path" from the root.`},
	},
	Example: `file("nginx.conf")`,
	build: func(c *call) (starlark.Value, error) {
		text, _ := c.readFile("path", c.str("path"))
		return starlark.String(text), nil
	},
}

var templateFunc = &Func{
	Name: "template",
	Doc: `Fills in a template file and returns the text.
Templates are Go's text/template: {{ .name }} stands for the keyword name, {{ range .list }} ... {{ end }} repeats. A name that was not given is an error.`,
	Returns: "str",
	Params: []Param{
		{Name: "path", Kind: textKind, Position: true, Doc: `Path from the playbook's file, or "//path" from the root.`},
	},
	Rest:    "values for the template",
	Example: `template("telegraf.conf.tmpl", influxdb = influxdb.url(8086))`,
	build: func(c *call) (starlark.Value, error) {
		vars := map[string]any{}
		for _, kw := range c.rest {
			name, _ := starlark.AsString(kw[0])
			vars[name] = c.plain(name, kw[1])
		}
		return starlark.String(c.fill("path", c.str("path"), vars)), nil
	},
}

func (c *call) readFile(arg, path string) (string, bool) {
	if path == "" || c.bad {
		return "", false
	}
	if c.run.ReadFile == nil {
		c.errorf(arg, "there are no files here")
		return "", false
	}
	b, err := c.run.ReadFile(c.at.Filename(), path)
	if err != nil {
		c.errorf(arg, "%v", err)
		return "", false
	}
	return string(b), true
}

func (c *call) fill(arg, path string, vars map[string]any) string {
	text, ok := c.readFile(arg, path)
	if !ok {
		return ""
	}
	t, err := template.New(path).Option("missingkey=error").Parse(text)
	var out limited
	if err == nil {
		err = t.Execute(&out, vars)
	}
	if err != nil {
		c.errorf(arg, "%s", strings.TrimPrefix(err.Error(), "template: "))
		return ""
	}
	return out.String()
}

// limited is a buffer that ends a template which writes without end.
type limited struct{ strings.Builder }

func (l *limited) Write(p []byte) (int, error) {
	if l.Len()+len(p) > MaxContent {
		return 0, errors.New("makes more than 1 MiB of text")
	}
	return l.Builder.Write(p)
}

// plain turns a value into what templates work on.
func (c *call) plain(name string, v starlark.Value) any {
	switch v := v.(type) {
	case starlark.NoneType:
		return nil
	case starlark.String:
		return string(v)
	case starlark.Bool:
		return bool(v)
	case starlark.Float:
		return float64(v)
	case starlark.Int:
		if n, ok := v.Int64(); ok {
			return n
		}
	case *starlarkstruct.Struct:
		m := map[string]any{}
		for _, k := range v.AttrNames() {
			x, _ := v.Attr(k)
			m[k] = c.plain(name+"."+k, x)
		}
		return m
	case *starlark.Dict:
		m := map[string]any{}
		for k, x := range v.Entries() {
			key, _ := starlark.AsString(k)
			m[key] = c.plain(fmt.Sprintf("%s[%s]", name, k), x)
		}
		return m
	case *starlark.List, starlark.Tuple:
		all := []any{}
		for x := range starlark.Elements(v.(starlark.Iterable)) {
			all = append(all, c.plain(name, x))
		}
		return all
	}
	c.errorf(name, "%s can't be used in a template: it is %s", name, show(v))
	return nil
}

var secretFunc = &Func{
	Name:    "secret",
	Doc:     "A secret, given to tasks as a file in memory. Its value never shows: not in plans, logs or the playbook itself.",
	Returns: "secret",
	Params: []Param{
		{Name: "name", Kind: textKind, Position: true, Doc: "Name in the stack; of an external one, its name in the cluster."},
		{Name: "generate", Kind: intKind(8, 1024), Default: "None", Doc: "Make a random value of so many letters and digits, once."},
		{Name: "external", Kind: boolKind, Default: "False", Doc: "Made beforehand with `orch secret create`."},
		{Name: "path", Kind: textKind, Default: "None", Doc: "Path in the task; None means /run/secrets/NAME."},
		{Name: "mode", Kind: intKind(0, 0o777), Default: "0o400", Doc: "Permissions of the file."},
	},
	Elsewhere: map[string]string{"value": "a secret's value never stands in a playbook; use external = True", "content": "a secret's value never stands in a playbook; use external = True",
		"file": "a secret's value never stands in a bundle; use external = True", "environment": "playbooks don't see the environment; use external = True"},
	Example: `password = secret("db-password", generate = 32)`,
	build: func(c *call) (starlark.Value, error) {
		s := &api.SecretSpec{Name: c.objectName(), Generate: int32(c.int("generate")), External: c.bool("external"), Origin: c.origin()}
		if !c.bad && (s.Generate > 0) == s.External {
			c.errorf("", "say where the value comes from: either generate = LENGTH or external = True")
		}
		ref := &api.FileRef{Name: s.Name, Path: c.filePath("/run/secrets/" + s.Name), Mode: uint32(c.int("mode"))}
		return c.made("secret", s.Name, &content{spec: s, ref: ref}, fileAttrs(ref)), nil
	},
}

// content is a secret's or config's spec and where tasks find it.
type content struct {
	spec any // *api.SecretSpec | *api.ConfigSpec
	ref  *api.FileRef
}

var configFunc = &Func{
	Name:    "config",
	Doc:     "A file for tasks. A change of its content rolls the services that use it, and rolls back with them.",
	Returns: "config",
	Params: []Param{
		{Name: "name", Kind: textKind, Position: true, Doc: "Name in the stack."},
		{Name: "content", Kind: textKind, Default: "None", Doc: "The text itself."},
		{Name: "file", Kind: textKind, Default: "None", Doc: "A file of the bundle, as file() reads it."},
		{Name: "template", Kind: textKind, Default: "None", Doc: "A template of the bundle, as template() fills it in."},
		{Name: "vars", Kind: anyKind, Default: "None", Doc: "Dict of values for the template."},
		{Name: "path", Kind: textKind, Default: "None", Doc: "Path in the task; None means /NAME."},
		{Name: "mode", Kind: intKind(0, 0o777), Default: "0o444", Doc: "Permissions of the file."},
	},
	Example: `config("app.conf", template = "app.conf.tmpl", vars = {"db": db.url(5432, scheme = "postgres")}, path = "/etc/app.conf")`,
	build: func(c *call) (starlark.Value, error) {
		s := &api.ConfigSpec{Name: c.objectName(), Origin: c.origin()}
		sources := 0
		for _, p := range []string{"content", "file", "template"} {
			if c.has(p) {
				sources++
			}
		}
		if sources != 1 && !c.bad {
			c.errorf("", "give exactly one of content, file and template")
		}
		vars := map[string]any{}
		if c.has("vars") {
			if d, ok := get[starlark.Value](c, "vars").(*starlark.Dict); !ok {
				c.errorf("vars", "vars must be a dict")
			} else if !c.has("template") {
				c.errorf("vars", "vars go with template")
			} else {
				vars, _ = c.plain("vars", d).(map[string]any)
			}
		}
		text := c.str("content")
		if c.has("file") {
			text, _ = c.readFile("file", c.str("file"))
		}
		if c.has("template") {
			text = c.fill("template", c.str("template"), vars)
		}
		if len(text) > MaxContent {
			c.errorf("", "a config may hold 1 MiB; this has %d bytes", len(text))
		}
		sum := sha256.Sum256([]byte(text))
		s.Content, s.Digest = []byte(text), hex.EncodeToString(sum[:])
		ref := &api.FileRef{Name: s.Name, Path: c.filePath("/" + s.Name), Mode: uint32(c.int("mode")), Digest: s.Digest}
		return c.made("config", s.Name, &content{spec: s, ref: ref}, fileAttrs(ref)), nil
	},
}

func fileAttrs(ref *api.FileRef) starlark.StringDict {
	return starlark.StringDict{"name": starlark.String(ref.Name), "path": starlark.String(ref.Path)}
}

func (c *call) filePath(otherwise string) string {
	p := c.str("path")
	if p == "" {
		return otherwise
	}
	if p[0] != '/' {
		c.errorf("path", "path must be an absolute path in the task, not %q", p)
	}
	return p
}

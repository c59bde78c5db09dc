package builtins

import (
	"fmt"
	"regexp"
	"sync/atomic"

	"go.starlark.net/starlark"

	"orch/engine/api"
)

// Service is what service() and job() return. It is immutable.
type Service struct {
	spec  *api.ServiceSpec
	image string
	call  *call // that made it: with_ starts from its arguments
	bad   bool  // its call had errors

	reached atomic.Bool // by the stack or by with_; strategies on many threads may call that
}

var _ starlark.HasAttrs = (*Service)(nil)

func (s *Service) isJob() bool           { return s.spec.Mode == "job" }
func (s *Service) String() string        { return fmt.Sprintf("<%s %s>", s.Type(), s.spec.Name) }
func (s *Service) Type() string          { return s.call.fn.Name }
func (s *Service) Freeze()               {}
func (s *Service) Truth() starlark.Bool  { return true }
func (s *Service) Hash() (uint32, error) { return hashText(s.spec.Name), nil }

// AttrNames implements starlark.HasAttrs.
func (s *Service) AttrNames() []string {
	return []string{"host", "image", "name", "replicas", "url", "with_"}
}

// Attr implements starlark.HasAttrs.
func (s *Service) Attr(name string) (starlark.Value, error) {
	switch name {
	case "name":
		return starlark.String(s.spec.Name), nil
	case "host":
		return starlark.String(api.Url{Scheme: "host", Service: s.spec.Name}.Placeholder()), nil
	case "image":
		if s.image == "" {
			return starlark.None, nil
		}
		return starlark.String(s.image), nil
	case "replicas":
		return starlark.MakeInt(int(s.spec.Replicas)), nil
	case "url":
		return urlFunc.builtinFor(func(c *call) (starlark.Value, error) { return s.url(c), nil }), nil
	case "with_":
		return starlark.NewBuiltin("with_", s.with), nil
	}
	return nil, nil
}

var urlFunc = (&Func{
	Name:    "url",
	Doc:     "The service's address as the reader's task needs it, for env values and configs. It is filled in on the node that runs the reader.",
	Returns: "str",
	Params: []Param{
		{Name: "port", Kind: portKind_, Position: true, Doc: "Port of the service."},
		{Name: "scheme", Kind: textKind, Default: `"http"`, Doc: `What stands before "://".`},
	},
	Example: `env = {"INFLUXDB_URL": influxdb.url(8086)}`,
}).init()

var urlScheme = regexp.MustCompile(`^[a-z][a-z0-9+.-]*$`)

// builtinFor is the Func as a method.
func (f *Func) builtinFor(build func(*call) (starlark.Value, error)) *starlark.Builtin {
	return starlark.NewBuiltin(f.Name, func(t *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
		c := f.begin(t)
		c.unpack(args, kwargs)
		c.required()
		return c.finish(build(c))
	})
}

func (s *Service) url(c *call) starlark.Value {
	scheme := c.str("scheme")
	if !urlScheme.MatchString(scheme) || scheme == "host" {
		c.errorf("scheme", "scheme must be a word such as \"http\", not %q", scheme)
	}
	if s.isJob() {
		c.errorf("", "a job has no address; %q is one", s.spec.Name)
	}
	if s.spec.Task.Runtime == "process" && c.has("port") && !s.listensOn(c.int("port")) {
		c.errorf("port", "service %q has no port %d among its ports", s.spec.Name, c.int("port"))
	}
	return starlark.String(api.Url{Scheme: scheme, Service: s.spec.Name, Port: c.int("port")}.Placeholder())
}

func (s *Service) listensOn(port int) bool {
	for _, p := range s.spec.Ports {
		if int(p.Target) == port {
			return true
		}
	}
	return s.bad
}

// with returns a copy with other arguments; None puts a default back.
func (s *Service) with(t *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	c := s.call.fn.begin(t)
	for _, k := range s.call.kept {
		c.values[k.param], c.given[k.param] = k.value, true
	}
	if len(args) > 0 {
		c.problem(Problem{Index: 1, Message: "with_ takes only NAME = VALUE"})
	}
	c.unpack(nil, kwargs)
	c.run.reach(s) // it served
	return c.finish(c.service(), nil)
}

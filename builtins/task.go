package builtins

import (
	"strings"

	"orch/engine/api"
)

// task fills in what runs.
func (c *call) task() *api.TaskSpec {
	t := &api.TaskSpec{
		Runtime: c.str("runtime"), Image: c.str("image"), Entrypoint: c.strings("entrypoint"), Command: c.strings("command"),
		Env: c.dict("env"), User: c.str("user"), Workdir: c.str("workdir"), Hostname: c.str("hostname"),
		Resources: specOf[*api.Resources](c, "resources"), StopSignal: c.str("stop_signal"), StopGrace: c.duration("stop_grace"),
		Init: c.bool("init"), CapAdd: c.strings("cap_add"), CapDrop: c.strings("cap_drop"), Devices: c.strings("devices"),
		Gpus: c.str("gpus"), Privileged: c.bool("privileged"), Sysctls: c.dict("sysctls"), Ulimits: c.dict("ulimits"),
		SecurityOpt: c.strings("security_opt"), ShmSize: get[int64](c, "shm_size"), ReadOnly: c.bool("read_only"), Tty: c.bool("tty"),
		Log: get[*api.LogPolicy](c, "log"), Pull: c.str("pull"),
	}
	if t.Runtime == "" {
		t.Runtime = "process"
		if t.Image != "" {
			t.Runtime = "docker"
		}
	}
	for _, v := range c.valuesOf("networks") {
		t.Networks = append(t.Networks, v.name)
	}
	targets := map[string]bool{}
	take := func(arg, path string) {
		if targets[path] && path != "" {
			c.errorf(arg, "two things are mounted at %s", path)
		}
		targets[path] = true
	}
	for _, v := range c.valuesOf("mounts") {
		m := v.spec.(*api.Mount)
		take("mounts", m.Target)
		t.Mounts = append(t.Mounts, m)
	}
	for _, v := range c.valuesOf("secrets") {
		r := v.spec.(*content).ref
		take("secrets", r.Path)
		t.Secrets = append(t.Secrets, r)
	}
	for _, v := range c.valuesOf("configs") {
		r := v.spec.(*content).ref
		take("configs", r.Path)
		t.Configs = append(t.Configs, r)
	}
	for _, arg := range append(t.Command, t.Entrypoint...) {
		if len(api.Urls(arg)) > 0 {
			c.errorf("command", "url() and .host work in env and in configs, not in command: pass them through env")
			break
		}
	}
	return t
}

// valuesOf lists the values given for a list parameter.
func (c *call) valuesOf(name string) []*Value {
	return asValues(c.values[c.at_(name)])
}

func asValues(x any) []*Value {
	all, _ := x.([]any)
	if len(all) == 0 {
		return nil
	}
	vs := make([]*Value, len(all))
	for i, x := range all {
		vs[i] = x.(*Value)
	}
	return vs
}

// dockerOnly are parameters that mean nothing to a host process.
var dockerOnly = []string{"hostname", "init", "cap_add", "cap_drop", "devices", "gpus", "privileged", "sysctls", "ulimits",
	"security_opt", "shm_size", "read_only", "tty", "log"}

// runtimeRules checks what each runtime needs and refuses, and completes
// the task accordingly.
func (c *call) runtimeRules(s *api.ServiceSpec) {
	t := s.Task
	if t.Runtime == "docker" {
		if t.Image == "" && !c.bad {
			c.errorf("", "runtime \"docker\" needs an image")
		}
		if strings.ContainsAny(t.Image, " \t\n") {
			c.errorf("image", "image %q has blanks in it", t.Image)
		}
		if len(t.Networks) == 0 {
			t.Networks = []string{"default"}
		}
		return
	}
	if len(t.Command)+len(t.Entrypoint) == 0 && !c.bad {
		what := "needs an image, or a command to run as a process"
		if c.has("runtime") {
			what = `runtime "process" needs a command`
		}
		c.errorf("", "%s", what)
	}
	for _, name := range dockerOnly {
		if c.has(name) && c.values[c.at_(name)] != nil && c.values[c.at_(name)] != false {
			c.errorf(name, "%s works with runtime \"docker\" only", name)
		}
	}
	for _, m := range t.Mounts {
		if m.Type == "tmpfs" {
			c.errorf("mounts", "tmpfs works with runtime \"docker\" only")
		}
	}
	t.Image, t.Networks, t.Pull = "", nil, ""
}

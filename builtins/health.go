package builtins

import (
	"strings"

	"go.starlark.net/starlark"

	"orch/engine/api"
)

// probing are the parameters that all health checks share.
var probing = []Param{
	{Name: "interval", Kind: durationKind, Default: `"10s"`, Doc: "Time between two checks."},
	{Name: "timeout", Kind: durationKind, Default: `"3s"`, Doc: "How long one check may take."},
	{Name: "retries", Kind: intKind(1, 1000), Default: "3", Doc: "Failures in a row that count."},
	{Name: "start_period", Kind: durationKind, Default: `"0s"`, Doc: "Failures in this time after the start don't count."},
}

func healthFunc(name, doc, example string, params []Param, fill func(*call, *api.HealthCheck)) *Func {
	return &Func{
		Name: "health." + name, Doc: doc, Returns: "health", Example: example,
		Params: append(params, probing...),
		build: func(c *call) (starlark.Value, error) {
			h := &api.HealthCheck{Type: name, Interval: c.duration("interval"), Timeout: c.duration("timeout"),
				Retries: int32(c.int("retries")), StartPeriod: c.duration("start_period"), Origin: c.origin()}
			for _, p := range []string{"interval", "timeout"} {
				if c.duration(p).AsDuration() == 0 {
					c.errorf(p, "%s must be more than 0s", p)
				}
			}
			fill(c, h)
			return c.made("health", name, h, nil), nil
		},
	}
}

var healthFuncs = []*Func{
	healthFunc("http", "Healthy while an HTTP GET answers with the status.", `health.http("/ping", port = 8086, status = 204)`, []Param{
		{Name: "path", Kind: textKind, Position: true, Doc: `Path to ask for, beginning with "/".`},
		{Name: "port", Kind: portKind_, Doc: "Port of the task."},
		{Name: "status", Kind: intKind(100, 599), Default: "200", Doc: "Status that means healthy."},
	}, func(c *call, h *api.HealthCheck) {
		h.HttpPath, h.Port, h.HttpStatus = c.str("path"), uint32(c.int("port")), uint32(c.int("status"))
		if c.has("path") && !strings.HasPrefix(h.HttpPath, "/") {
			c.errorf("path", `path must begin with "/", not %q`, h.HttpPath)
		}
	}),
	healthFunc("tcp", "Healthy while the port accepts connections.", `health.tcp(5432)`, []Param{
		{Name: "port", Kind: portKind_, Position: true, Doc: "Port of the task."},
	}, func(c *call, h *api.HealthCheck) { h.Port = uint32(c.int("port")) }),
	healthFunc("cmd", "Healthy while a command in the task exits with 0.", `health.cmd(["pg_isready", "-U", "postgres"])`, []Param{
		{Name: "command", Kind: argvKind, Position: true, Doc: "Program and arguments; no shell."},
	}, func(c *call, h *api.HealthCheck) {
		h.Command = c.strings("command")
		if c.has("command") && len(h.Command) == 0 {
			c.errorf("command", "command is empty")
		}
	}),
}

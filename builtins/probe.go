package builtins

import (
	"fmt"
	"math"
	"net/url"
	"time"

	"go.starlark.net/starlark"

	"orch/engine/api"
)

var numberKind = Kind{Name: "number", Stub: "float", read: func(v starlark.Value) (any, error) {
	if f, ok := starlark.AsFloat(v); ok && !math.IsNaN(f) && !math.IsInf(f, 0) {
		return f, nil
	}
	return nil, wrong("a number", v)
}}

// webKind reads absolute http and https URLs; a service's .url() may stand
// where the address does.
var webKind = Kind{Name: "url", Stub: "str", read: func(v starlark.Value) (any, error) {
	text, err := textKind.read(v)
	if err != nil {
		return nil, err
	}
	plain := api.ResolveUrls(text.(string), func(u api.Url) string {
		if u.Scheme == "host" {
			return u.Service
		}
		return fmt.Sprintf("%s://%s:%d", u.Scheme, u.Service, u.Port)
	})
	u, err := url.Parse(plain)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, wrongHint(`a URL such as "http://prometheus:9090"`, v, "it begins with http:// or https://, or with a service's .url(port)")
	}
	return text, nil
}}

func timeoutParam(def string) Param {
	return Param{Name: "timeout", Kind: durationKind, Default: def, Doc: "How long the answer may take; later counts as bad."}
}

// bounds are the parameters of probes that judge a number.
var bounds = []Param{
	{Name: "below", Kind: numberKind, Default: "None", Doc: "Good if the number is less than this."},
	{Name: "above", Kind: numberKind, Default: "None", Doc: "Good if the number is more than this; with below, both must hold."},
	timeoutParam(`"5s"`),
}

func probeFunc(name, doc, example string, params []Param, fill func(*call, *api.Probe)) *Func {
	return &Func{
		Name: "probe." + name, Doc: doc, Returns: "probe", Example: example, Params: params,
		build: func(c *call) (starlark.Value, error) {
			p := &api.Probe{Type: name, Timeout: c.duration("timeout"), Origin: c.origin()}
			if p.Timeout.AsDuration() == 0 {
				c.errorf("timeout", "timeout must be more than 0s")
			}
			fill(c, p)
			return c.made("probe", name, p, nil), nil
		},
	}
}

func (c *call) bounds(p *api.Probe) {
	if c.has("below") {
		below := get[float64](c, "below")
		p.Below = &below
	}
	if c.has("above") {
		above := get[float64](c, "above")
		p.Above = &above
	}
	switch {
	case c.bad:
	case p.Below == nil && p.Above == nil:
		c.errorf("", "below or above is needed: which numbers are good?")
	case p.Below != nil && p.Above != nil && *p.Above >= *p.Below:
		c.errorf("above", "no number is above %v and below %v", *p.Above, *p.Below)
	}
}

var probeFuncs = []*Func{
	probeFunc("http", "Good if an HTTP GET answers with the status.", `r.check(probe.http(web.url(80) + "/ready"))`, []Param{
		{Name: "url", Kind: webKind, Position: true, Doc: "What to GET; a service's .url(port) can be part of it."},
		{Name: "status", Kind: intKind(100, 599), Default: "200", Doc: "Status that is good."},
		timeoutParam(`"5s"`),
	}, func(c *call, p *api.Probe) { p.Url, p.Status = c.str("url"), uint32(c.int("status")) }),
	probeFunc("metric", "Asks Prometheus: good if the query's number is within the bounds. No number is bad.",
		`r.analyze(probe.metric("http://prometheus:9090", "rate(errors[1m])", below = 0.01))`, append([]Param{
			{Name: "prometheus_url", Kind: webKind, Position: true, Doc: "Where Prometheus is."},
			{Name: "query", Kind: textKind, Position: true, Doc: "PromQL that gives one number."},
		}, bounds...), func(c *call, p *api.Probe) {
			p.Url, p.Query = c.str("prometheus_url"), c.query()
			c.bounds(p)
		}),
	probeFunc("influx", "Asks InfluxDB: good if the query's number is within the bounds. No number is bad.",
		`r.analyze(probe.influx(influxdb.url(8086), "telegraf", "SELECT last(usage_idle) FROM cpu", above = 20))`, append([]Param{
			{Name: "url", Kind: webKind, Position: true, Doc: "Where InfluxDB is."},
			{Name: "db", Kind: textKind, Position: true, Doc: "Its database."},
			{Name: "query", Kind: textKind, Position: true, Doc: "InfluxQL that gives one number."},
		}, bounds...), func(c *call, p *api.Probe) {
			p.Url, p.Db, p.Query = c.str("url"), c.str("db"), c.query()
			if c.has("db") && p.Db == "" {
				c.errorf("db", "db is empty")
			}
			c.bounds(p)
		}),
	probeFunc("exec", "Good if a command in a task of the new version exits with 0.", `r.check(probe.exec(["/app", "selftest"]))`, []Param{
		{Name: "command", Kind: argvKind, Position: true, Doc: "Program and arguments; no shell."},
		timeoutParam(`"10s"`),
	}, func(c *call, p *api.Probe) {
		p.Command = c.strings("command")
		if c.has("command") && len(p.Command) == 0 {
			c.errorf("command", "command is empty")
		}
	}),
	probeFunc("traffic", "Judges what the cluster's own ingress saw of the new version's published ports: requests of protocol http, connections of tcp. Too few of them are bad.",
		`r.analyze(probe.traffic("error_rate", below = 0.01), interval = "10s", count = 6)`, append([]Param{
			{Name: "metric", Kind: choice("error_rate", "requests", "p50", "p90", "p99"), Position: true, Doc: "error_rate: the part, from 0 to 1, that was answered with a status from 500, or that no task took. requests: how many. p50, p90, p99: seconds until the answer began (tcp: until the task took it) that so many percent don't exceed, 19 % too high at most."},
			{Name: "window", Kind: durationKind, Default: `"30s"`, Doc: "How far to look back; 5s to 5m."},
			{Name: "least", Kind: intKind(1, 1<<31-1), Default: "1", Doc: "Requests that it takes to judge."},
			{Name: "version", Kind: choice("new", "old"), Default: `"new"`, Doc: "Whose traffic: that of the version that is rolled out, or of the one before."},
		}, bounds...), func(c *call, p *api.Probe) {
			p.Query, p.Least, p.Stable = c.str("metric"), uint32(c.int("least")), c.str("version") == "old"
			if d := c.duration("window"); d != nil {
				p.Window = d
				if w := d.AsDuration(); w < 5*time.Second || w > 5*time.Minute {
					c.errorf("window", "window must be from 5s to 5m")
				}
			}
			c.bounds(p)
		}),
}

func (c *call) query() string {
	q := c.str("query")
	if c.has("query") && q == "" {
		c.errorf("query", "query is empty")
	}
	return q
}

package builtins

import (
	"fmt"
	"slices"
	"strings"

	"go.starlark.net/starlark"

	"orch/engine/api"
	"orch/engine/spec"
)

// method is a function of r.
type method struct {
	table *Func
	do    func(*Replay, *call) (starlark.Value, error)
}

// op is a method that is journaled: what it asks for.
func op(f *Func, ask func(*Replay, *call) *api.Op) method {
	f.Returns = "result"
	return method{f, func(p *Replay, c *call) (starlark.Value, error) {
		op := ask(p, c)
		if op == nil && !c.bad { // nothing to do
			return done(), nil
		}
		return p.do(c, op)
	}}
}

var slotsKind = Kind{Name: "list of slots", Stub: "list[str]", read: list(textKind).read}

// slotsOrGroupKind reads a list of slots, or the name of a surge as string.
var slotsOrGroupKind = Kind{Name: "list of slots, or a surge's name", Stub: "list[str] | str", read: func(v starlark.Value) (any, error) {
	s, ok := v.(starlark.String)
	switch {
	case ok && strings.Contains(string(s), "."):
		return nil, wrongHint("a list of slots, or a surge's name", v, "put a slot in [ ]")
	case ok:
		return string(s), nil
	}
	return slotsKind.read(v)
}}

var jobKind = Kind{Name: "job or its name", Stub: "job_ | str", read: func(v starlark.Value) (any, error) {
	switch v := v.(type) {
	case *Service:
		if v.isJob() {
			return v.spec.Name, nil
		}
	case starlark.String:
		if validServiceName(string(v)) {
			return string(v), nil
		}
	}
	return nil, wrong("a job or its name", v)
}}

var (
	groupParam    = Param{Name: "name", Kind: textKind, Position: true, Doc: "Name of the surge: a-z, 0-9 and -."}
	probeParam    = Param{Name: "probe", Kind: kindOf("probe"), Position: true, Doc: "From probe.http() and so on."}
	orderChoices  = choice("start-first", "stop-first")
	anyCountKind  = intKind(1, 10000)
	failedAllowed = "How many may fail; one more ends the wait."
)

// rMethods are the functions of r in the order of the manual.
var rMethods = []method{
	{slotsFunc, func(p *Replay, c *call) (starlark.Value, error) { return p.listSlots(c) }},
	{batchesFunc, func(p *Replay, c *call) (starlark.Value, error) { return p.batches(c) }},
	op(&Func{Name: "r.replace", Doc: "Gives slots tasks of the new version. It doesn't wait until they are healthy.", Params: []Param{
		{Name: "slots", Kind: slotsKind, Position: true, Doc: "Which, as r.slots() and r.batches() name them."},
		{Name: "order", Kind: orderChoices, Default: "None", Position: true, Doc: "Whether the new task is ready before the old one stops; None means the policy's."},
	}, Example: `r.replace(r.slots()[:1])`}, func(p *Replay, c *call) *api.Op {
		slots := p.slotsOf(c, "slots", false)
		order := c.str("order")
		if order == "" {
			order = p.rollout.GetPolicy().GetOrder()
		}
		if order == "" {
			order = "start-first"
		}
		if len(slots) == 0 {
			return nil
		}
		return &api.Op{Kind: "replace", Slots: slots, Order: order}
	}),
	op(&Func{Name: "r.surge", Doc: "Starts tasks of the new version beside the service's own; under the same name again: so many in all. .slots are theirs. Not ok where they can't stand beside the old ones.", Params: []Param{
		groupParam, {Name: "n", Kind: parallelismKind, Position: true, Doc: `How many: a number, or a part of the replicas such as "10%".`},
	}, Example: `r.surge("canary", 1)`}, func(p *Replay, c *call) *api.Op {
		name := p.group(c, false)
		n, err := spec.BatchSize(c.str("n"), p.replicas())
		if err != nil && !c.bad {
			c.errorf("n", "%v", err)
		}
		return &api.Op{Kind: "surge", Group: name, Count: int32(n)}
	}),
	op(&Func{Name: "r.adopt", Doc: "Makes the tasks of a surge the service's own. .slots are theirs, .removed those whose place they took.", Params: []Param{groupParam},
		Example: `r.adopt("canary")`}, func(p *Replay, c *call) *api.Op {
		return &api.Op{Kind: "adopt", Group: p.group(c, true)}
	}),
	op(&Func{Name: "r.drop", Doc: "Stops the tasks of a surge.", Params: []Param{groupParam}, Example: `r.drop("canary")`}, func(p *Replay, c *call) *api.Op {
		return &api.Op{Kind: "drop", Group: p.group(c, true)}
	}),
	op(&Func{Name: "r.wait_healthy", Doc: "Waits until slots are healthy with the new version. .failed are those that failed.", Params: []Param{
		{Name: "slots", Kind: slotsOrGroupKind, Position: true, Doc: "Which slots, or the name of a surge."},
		{Name: "min_healthy", Kind: durationKind, Default: `"0s"`, Doc: "How long each must be healthy."},
		{Name: "timeout", Kind: durationKind, Default: "None", Doc: "Not ok if it takes longer; None means what the engine finds right."},
		{Name: "max_failed", Kind: countKind, Default: "0", Doc: failedAllowed},
	}, Example: `if not r.wait_healthy(batch, min_healthy = "30s").ok: ...`}, func(p *Replay, c *call) *api.Op {
		o := &api.Op{Kind: "wait_healthy", Duration: c.duration("min_healthy"), Timeout: c.duration("timeout"), MaxFailed: int32(c.int("max_failed"))}
		if group, ok := c.values[c.at_("slots")].(string); ok {
			o.Group = group
			p.knownGroup(c, "slots", group)
			return o
		}
		if o.Slots = p.slotsOf(c, "slots", true); len(o.Slots) == 0 {
			return nil
		}
		return o
	}),
	op(&Func{Name: "r.pause", Doc: "Waits.", Params: []Param{{Name: "duration", Kind: durationKind, Position: true, Doc: "How long."}}, Example: `r.pause("30s")`},
		func(_ *Replay, c *call) *api.Op { return &api.Op{Kind: "pause", Duration: c.duration("duration")} }),
	op(&Func{Name: "r.check", Doc: "Asks a probe once: ok if it is good.", Params: []Param{probeParam}, Example: `r.check(probe.http(web.url(80)))`},
		func(_ *Replay, c *call) *api.Op { return &api.Op{Kind: "check", Probe: specOf[*api.Probe](c, "probe")} }),
	op(&Func{Name: "r.analyze", Doc: "Asks a probe again and again: ok if it was good often enough. It ends as soon as it was bad too often.", Params: []Param{
		probeParam,
		{Name: "interval", Kind: durationKind, Default: `"10s"`, Doc: "Time between two."},
		{Name: "count", Kind: anyCountKind, Default: "5", Doc: "How often to ask."},
		{Name: "fail_limit", Kind: countKind, Default: "0", Doc: "How often it may be bad."},
	}, Example: `r.analyze(probe.metric("http://prometheus:9090", "errors", below = 1), interval = "30s", count = 10)`}, func(_ *Replay, c *call) *api.Op {
		return &api.Op{Kind: "analyze", Probe: specOf[*api.Probe](c, "probe"), Interval: c.duration("interval"), Count: int32(c.int("count")), FailLimit: int32(c.int("fail_limit"))}
	}),
	op(&Func{Name: "r.traffic", Doc: "Gives the new version its part of what comes in through published ports: of connections, of requests with protocol \"http\". It holds until the next r.traffic or the rollout's end; going back gives the new version nothing. A version without a ready task gets nothing, whatever its part.", Params: []Param{
		{Name: "new", Kind: intKind(0, 100), Doc: "Percent for the new version."},
	}, Example: `r.traffic(new = 10)`}, func(_ *Replay, c *call) *api.Op {
		return &api.Op{Kind: "traffic", Count: int32(c.int("new"))}
	}),
	op(&Func{Name: "r.wait_signal", Doc: "Waits for an operator: `orch rollout promote SERVICE`.", Params: []Param{
		{Name: "name", Kind: textKind, Default: `"promote"`, Position: true, Doc: "Which signal."},
		{Name: "timeout", Kind: durationKind, Default: "None", Position: true, Doc: "Not ok if none comes in this time; None means until the rollout's deadline."},
	}, Example: `r.wait_signal("promote", timeout = "1h")`}, func(_ *Replay, c *call) *api.Op {
		if name := c.str("name"); !validServiceName(name) {
			c.errorf("name", "name %q: use 1 to 63 of a-z, 0-9 and -, with a letter or digit at both ends", name)
		}
		return &api.Op{Kind: "wait_signal", Text: c.str("name"), Timeout: c.duration("timeout")}
	}),
	op(&Func{Name: "r.run", Doc: "Runs a job of the stack and waits for its end: ok if it succeeds.", Params: []Param{
		{Name: "job", Kind: jobKind, Position: true, Doc: "From job(), with on_demand = True."},
	}, Example: `r.run("migrate")`}, func(_ *Replay, c *call) *api.Op { return &api.Op{Kind: "run", Text: c.str("job")} }),
	op(&Func{Name: "r.event", Doc: "Notes something among the events of the cluster.", Params: []Param{
		{Name: "text", Kind: textKind, Position: true, Doc: "What to note."},
	}, Example: `r.event("half of it is new")`}, func(_ *Replay, c *call) *api.Op {
		if text := c.str("text"); c.has("text") && text == "" || len(text) > 4096 {
			c.errorf("text", "text must have 1 to 4096 bytes, not %d", len(text))
		}
		return &api.Op{Kind: "event", Text: c.str("text")}
	}),
	op(&Func{Name: "r.succeed", Doc: "Ends the rollout: the new version is what the service goes back to from now on. First the engine itself gives the new version to the slots that still lack it, all at once, drops surges that were not adopted, and waits until all are healthy.", Example: `return r.succeed()`},
		func(*Replay, *call) *api.Op { return &api.Op{Kind: "succeed"} }),
	op(&Func{Name: "r.fail", Doc: "Ends the rollout.", Params: []Param{
		{Name: "policy", Kind: choice("rollback", "pause", "continue"), Default: `"rollback"`, Position: true, Doc: "rollback: the old version comes back. pause: all stays until an operator comes. continue: all stays, and the release goes on."},
		{Name: "reason", Kind: textKind, Default: `""`, Position: true, Doc: "Why, for people."},
	}, Example: `return r.fail("rollback", "the canary was unhealthy")`}, func(_ *Replay, c *call) *api.Op {
		return &api.Op{Kind: "fail", Policy: c.str("policy"), Text: c.str("reason"), Reason: c.str("reason")}
	}),
}

// methods are rMethods by their names within r.
var methods = map[string]method{}

func init() {
	for _, m := range rMethods {
		m.table.init()
		methods[strings.TrimPrefix(m.table.Name, "r.")] = m
	}
}

// group reads the name of a surge; known: one that there was.
func (p *Replay) group(c *call, known bool) string {
	name := c.str("name")
	switch {
	case c.bad:
	case known:
		p.knownGroup(c, "name", name)
	case !validServiceName(name):
		c.errorf("name", "name %q: use 1 to 63 of a-z, 0-9 and -, with a letter or digit at both ends", name)
	}
	return name
}

func (p *Replay) knownGroup(c *call, arg, name string) {
	if !slices.Contains(p.groups, name) {
		c.problem(Problem{Arg: arg, Index: 1, Message: fmt.Sprintf("%s: there was no surge %q", c.fn.Name, name), Hint: Suggest(name, p.groups)})
	}
}

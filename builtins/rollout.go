package builtins

import (
	"strconv"
	"strings"

	"go.starlark.net/starlark"
	"google.golang.org/protobuf/types/known/durationpb"

	"orch/engine/api"
)

// Library is the strategy of a rollout() that names none: engine/rollout
// knows it by the same name.
const Library = "@orch//rollout.star:rolling"

// partKind reads a number of tasks or a percentage, of least or more.
func partKind(least int, want string) Kind {
	return Kind{Name: "int or percentage", Stub: "int | str", read: func(v starlark.Value) (any, error) {
		switch v := v.(type) {
		case starlark.Int:
			if n, ok := v.Int64(); ok && n >= int64(least) && n <= 1<<31-1 {
				return strconv.FormatInt(n, 10), nil
			}
		case starlark.String:
			num, percent := strings.CutSuffix(string(v), "%")
			if n, err := strconv.Atoi(num); err == nil && n >= least && (!percent || n <= 100) {
				return string(v), nil
			}
		}
		return nil, wrong(want, v)
	}}
}

var (
	parallelismKind = partKind(1, `a number of tasks such as 2, or a part such as "25%"`)
	shareKind       = partKind(0, `a number of tasks such as 2 or 0, or a part such as "75%"`)
)

var rolloutFunc = &Func{
	Name: "rollout",
	Doc: `How a service gets from one version to the next: in batches, or with strategy = FUNCTION as that function says.
@orch//rollout.star has rolling (what is used without a strategy), canary, blue_green, progressive, one_zone_at_a_time and all_at_once; ` + "`orch doc r`" + ` tells how to write another. As a rollback policy it takes neither a strategy nor jobs: the engine itself goes back.`,
	Returns: "rollout",
	Params: []Param{
		{Name: "parallelism", Kind: parallelismKind, Default: "1", Doc: `Tasks replaced at once: a number, or a part such as "25%".`},
		{Name: "delay", Kind: durationKind, Default: `"0s"`, Doc: "Pause between two batches."},
		{Name: "order", Kind: choice("start-first", "stop-first"), Default: "None", Doc: "start-first: the new task is ready before the old one stops. None means start-first, except for tasks that occupy fixed ports of their host: stop-first. With a strategy it is the default of r.replace."},
		{Name: "monitor", Kind: durationKind, Default: `"10s"`, Doc: "How long a new task is watched for failure."},
		{Name: "max_failure_ratio", Kind: ratioKind(), Default: "0.0", Doc: "Part of the tasks that may fail, 0 to 1."},
		{Name: "on_failure", Kind: choice("rollback", "pause", "continue"), Default: `"rollback"`, Doc: "What to do when more fail. With a strategy: when the deadline passes, or a job of before or after fails."},
		{Name: "min_available", Kind: shareKind, Default: "None", Doc: `Tasks that keep serving all the while: a number, or a part such as "75%". None means all but parallelism.`},
		{Name: "max_surge", Kind: shareKind, Default: "None", Doc: `Tasks beyond the service's own at most: a number, or a part such as "25%". None means as many as it has.`},
		{Name: "deadline", Kind: durationKind, Default: "None", Doc: "How long the whole rollout may take; None means 24h."},
		{Name: "supersede", Kind: choice("cancel", "queue"), Default: "None", Doc: "What a newer version does to a rollout under way: cancel ends it there, queue waits for its end. None means cancel."},
		{Name: "before", Kind: servicesKind("job"), Default: "[]", Doc: "Jobs of the stack to run first, one after the other. They run only then."},
		{Name: "after", Kind: servicesKind("job"), Default: "[]", Doc: "Jobs of the stack to run before it counts as succeeded. They run only then."},
		{Name: "strategy", Kind: strategyKind, Default: "None", Doc: "A function def NAME(r, ...) at the top level of a module: it carries out the rollout."},
		{Name: "params", Kind: anyKind, Default: "None", Doc: "Dict of the function's further arguments: what JSON can hold."},
	},
	Elsewhere: map[string]string{"failure_action": "use on_failure", "progress_deadline": "use deadline", "max_unavailable": "use min_available"},
	Example:   `update = rollout(parallelism = "25%", order = "start-first", monitor = "30s")`,
	build:     func(c *call) (starlark.Value, error) { return c.rollout(), nil },
}

// plainOnly are parameters that a strategy takes, if it does, by params.
var plainOnly = []string{"parallelism", "delay", "monitor", "max_failure_ratio"}

func (c *call) rollout() *Value {
	r := &api.RolloutPolicy{Order: c.str("order"), OnFailure: c.str("on_failure"), MinAvailable: c.str("min_available"), MaxSurge: c.str("max_surge"),
		Deadline: c.duration("deadline"), Supersede: c.str("supersede"), Before: c.jobNames("before"), After: c.jobNames("after"), Origin: c.origin()}
	if r.Deadline != nil && r.Deadline.AsDuration() == 0 {
		c.errorf("deadline", "deadline must be more than 0s")
	}
	if c.has("strategy") {
		for _, p := range plainOnly {
			if c.has(p) {
				c.errorf(p, "%s is not for a strategy of its own: give it in params, if the strategy takes it", p)
			}
		}
		c.strategy(r)
	} else {
		if c.has("params") {
			c.errorf("params", "params are those of a strategy, and there is none: add strategy = FUNCTION")
		}
		r.Strategy, r.Parallelism, r.Delay, r.Monitor = Library, c.str("parallelism"), c.duration("delay"), c.duration("monitor")
		r.MaxFailureRatio = get[float64](c, "max_failure_ratio")
	}
	v := c.made("rollout", r.Order, r, nil)
	if c.has("on_failure") {
		v.of = starlark.String(r.OnFailure)
	}
	return v
}

func (c *call) jobNames(param string) []string {
	var names []string
	for _, x := range get[[]any](c, param) {
		names = append(names, x.(*Service).spec.Name)
	}
	return names
}

// rollbackPolicy refuses and clears what a rollback policy can't have, as the
// engine goes back without any script.
func (c *call) rollbackPolicy(given *Value, r *api.RolloutPolicy) {
	for _, no := range []struct {
		what string
		is   bool
	}{{"strategy", r.ParamsJson != ""}, {"before", len(r.Before) > 0}, {"after", len(r.After) > 0}, {"supersede", r.Supersede != ""}} {
		if no.is {
			c.errorf("rollback", "a rollback takes no %s (%s): the engine itself carries it out", no.what, given.at)
		}
	}
	r.Strategy, r.ParamsJson, r.Before, r.After, r.Supersede = "", "", nil, nil, ""
	if r.OnFailure == "rollback" {
		if given.of != nil {
			c.errorf("rollback", `a rollback is never rolled back: use on_failure = "pause" or "continue"`)
		}
		r.OnFailure = "pause"
	}
}

// rolloutOf is the update or rollback policy with its order decided.
func (c *call) rolloutOf(name string, s *api.ServiceSpec) *api.RolloutPolicy {
	fixed := len(s.Task.HostPorts) > 0
	v := get[*Value](c, name)
	if v == nil && name == "rollback" {
		return rollbackOf(s.Update)
	}
	if v == nil {
		order := "start-first"
		if fixed {
			order = "stop-first"
		}
		return sharedRollouts[order]
	}
	g := v.spec.(*api.RolloutPolicy)
	r := &api.RolloutPolicy{Parallelism: g.Parallelism, Delay: g.Delay, Order: g.Order, Monitor: g.Monitor, MaxFailureRatio: g.MaxFailureRatio,
		OnFailure: g.OnFailure, Before: g.Before, After: g.After, Strategy: g.Strategy, ParamsJson: g.ParamsJson, MinAvailable: g.MinAvailable,
		MaxSurge: g.MaxSurge, Deadline: g.Deadline, Supersede: g.Supersede, Origin: g.Origin}
	if name == "rollback" {
		c.rollbackPolicy(v, r)
	}
	switch {
	case r.Order == "" && name == "rollback":
		r.Order = s.Update.Order
	case r.Order == "" && fixed:
		r.Order = "stop-first"
	case r.Order == "":
		r.Order = "start-first"
	case r.Order == "start-first" && fixed:
		why := `it has ports with mode = "host"`
		if s.Task.Runtime == "process" {
			why = "a process listens on its host's own ports"
		}
		c.errorf(name, `order = "start-first" can't work here: %s, so port %d stays taken until the old task has stopped; use "stop-first"`, why, s.Task.HostPorts[0].Port)
	}
	return r
}

// sharedRollouts are rollout() without arguments, by order, and sharedRollbacks
// what goes with them. Specs share them: nobody changes them.
var sharedRollouts, sharedRollbacks = map[string]*api.RolloutPolicy{}, map[string]*api.RolloutPolicy{}

// strategyRollback is the parallelism of a rollback after a strategy of its
// own, which has none.
const strategyRollback = "25%"

// rollbackOf is how a service goes back that doesn't say: in the order and
// the batches of its update, without watching what is known to be good.
func rollbackOf(update *api.RolloutPolicy) *api.RolloutPolicy {
	if update == sharedRollouts[update.Order] {
		return sharedRollbacks[update.Order]
	}
	parallelism := update.Parallelism
	if parallelism == "" {
		parallelism = strategyRollback
	}
	return &api.RolloutPolicy{Parallelism: parallelism, Delay: durationpb.New(0), Order: update.Order, Monitor: durationpb.New(0), OnFailure: "pause"}
}

func init() {
	for _, order := range []string{"start-first", "stop-first"} {
		sharedRollouts[order] = &api.RolloutPolicy{Strategy: Library, Parallelism: "1", Delay: durationpb.New(0), Order: order,
			Monitor: durationpb.New(10e9), OnFailure: "rollback"}
		sharedRollbacks[order] = &api.RolloutPolicy{Parallelism: "1", Delay: durationpb.New(0), Order: order,
			Monitor: durationpb.New(0), OnFailure: "pause"}
	}
}

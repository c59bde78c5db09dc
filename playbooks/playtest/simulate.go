package playtest

import (
	"context"
	"errors"
	"fmt"

	"go.starlark.net/starlark"

	"orch/engine/simulate"
)

var simulateMethod = &method{
	name: "t.simulate", returns: "simulation",
	params: []param{
		{name: "path", doc: "The playbook, as load() would name it.", position: true},
		{name: "params", text: "{}", doc: "Its params, by name, in the release.", position: true},
		{name: "before", text: "None", doc: `Its params in the older release; both then differ in what these change, which may be nothing.
None: the same services and jobs, each at an older version.`},
		{name: "nodes", text: "3", doc: `How many nodes there are: n1, n2, ...; or a list of their labels, [{"zone": "a"}, {"zone": "b"}],
or a dict of them by name, {"big": {"disk": "ssd"}}.`},
		{name: "start", text: "{}", doc: `How long tasks take from their start until they are ready, by service: {"web": "30s"}, or as in unhealthy. Else: no time.`},
		{name: "unhealthy", text: "[]", doc: `Tasks that are never ready: of a service at a version, "web@new", or of a slot, "web.2@new".
A dict says how long they are ready before they aren't any more: {"web@new": "20s"}.
It befalls tasks that were made since the release began; so does crash.`},
		{name: "crash", text: "[]", doc: `Tasks that exit with code 1 before they are ready, named as in unhealthy; a dict says how long they are ready first.
"node:n2" is a node that goes down once the first new task is ready, or, in a dict, so long after the release began.`},
		{name: "probes", text: "{}", doc: `What the probes of a service's rollout say in turn, the last again and again: {"web": [True, False]}. Else: good.`},
		{name: "signals", text: "None", doc: `Which signals an operator sends, a minute after a rollout began to wait for one: ["promote"]. None: any; []: nobody sends.`},
		{name: "kill_leader_at", text: "None", doc: `The leader dies once op number 3 of a rollout was begun, from 0 as in ops(), and a new one goes on after three seconds.
"every": all is simulated once for each op of each rollout, with the leader killed there, and must come to the same.`},
	},
	doc: `Plays a release through on a cluster that runs an older one, with the engine's own code on a clock of its own: milliseconds instead of a rollout's minutes, and no cluster.
The simulation ends with the release, or when only an operator could move it on. It has
  .release            succeeded, rolled_back, paused, failed or needs_operator; under_way if it came to no end within a week
  .outcome(SERVICE)   the same for a service's rollout; of a service that wasn't rolled unchanged, changed (without new tasks), created or removed
  .reason(SERVICE)    why; without SERVICE why the release came to its end
  .ops(SERVICE)       what its rollout did: .kind, .text, .slots, .nodes (where those slots were when it began), .ok, .reason, .failed, .engine (not the strategy's own), and .at and .ended in seconds since the release began
  .tasks(SERVICE)     what runs in the end: .slot, .version ("old" or "new"), .node, .state
  .running(SERVICE, VERSION)   how many of them serve, of one version or of both
  .max_unavailable(SERVICE)    how many slots nobody served, at the worst moment
  .max_surge(SERVICE)          how many tasks there were beside the slots, at most
  .events             what an operator would have seen, as text
  .duration           seconds that it took`,
	example: `s = t.simulate("web.star", unhealthy = ["web@new"])
t.eq(s.outcome("web"), "rolled_back")
t.eq(s.max_unavailable("web"), 0)`,
	do: (*tester).simulate,
}

func (t *tester) simulate(c *call) (starlark.Value, error) {
	play, err := t.play(c)
	if err != nil {
		return nil, err
	}
	kills, every, err := c.kills()
	if err != nil {
		return nil, err
	}
	killed := false
	if kills != nil {
		play.Kill = func(service string, op int) bool {
			killed = killed || kills(service, op)
			return kills(service, op)
		}
	}
	ctx, cancel := context.WithTimeoutCause(t.ctx, t.o.MaxTime, fmt.Errorf("more than %v", t.o.MaxTime))
	defer cancel()
	played, err := playThrough(ctx, play, every)
	if err == nil && kills != nil && !killed {
		err = c.errorf("kill_leader_at", "is %s, but no rollout came to that op", show(c.value("kill_leader_at")))
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("t.simulate: %w", err)
	}
	return simulationValue(played), nil
}

func playThrough(ctx context.Context, play *simulate.Play, every bool) (*simulate.Played, error) {
	steady, err := play.Steady(ctx)
	if err != nil {
		return nil, err
	}
	played, err := play.Run(ctx, steady)
	if err != nil || !every {
		return played, err
	}
	return played, killEvery(ctx, play, steady, played)
}

// kills reads when the leader dies.
func (c *call) kills() (kill func(string, int) bool, every bool, err error) {
	switch v := c.value("kill_leader_at").(type) {
	case starlark.NoneType:
		return nil, false, nil
	case starlark.String:
		if v == "every" {
			return nil, true, nil
		}
	case starlark.Int:
		if n, ok := v.Int64(); ok && n >= 0 {
			return func(_ string, op int) bool { return op == int(n) }, false, nil
		}
	}
	return nil, false, c.errorf("kill_leader_at", `must be the number of an op, from 0, or "every", not %s`, show(c.value("kill_leader_at")))
}

// play reads the arguments of a call.
func (t *tester) play(c *call) (*simulate.Play, error) {
	r, err := t.eval(c, "params")
	if err != nil {
		return nil, err
	}
	play := &simulate.Play{
		Strategy: t.ask,
		After:    simulate.Source{Spec: r.Spec, Bundle: r.Bundle, ParamsJSON: r.ParamsJSON},
		Before:   simulate.Source{Spec: simulate.Older(r.Spec), Bundle: r.Bundle, ParamsJSON: r.ParamsJSON},
	}
	if _, ok := c.args["before"]; ok {
		old, err := t.eval(c, "before")
		if err != nil {
			return nil, fmt.Errorf("before: %w", err)
		}
		if old.Spec.Name != r.Spec.Name {
			return nil, c.errorf("before", "gives another stack, %q instead of %q", old.Spec.Name, r.Spec.Name)
		}
		play.Before = simulate.Source{Spec: old.Spec, Bundle: old.Bundle, ParamsJSON: old.ParamsJSON}
	}
	if play.Nodes, err = c.nodes(); err != nil {
		return nil, err
	}
	play.All = c.value("signals") == starlark.None
	if !play.All {
		if play.Signals, err = c.list("signals"); err != nil {
			return nil, err
		}
	}
	s := &scenario{call: c, play: play}
	return play, errors.Join(s.fates(), s.probes())
}

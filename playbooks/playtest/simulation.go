package playtest

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"go.starlark.net/starlark"
	"go.starlark.net/starlarkstruct"

	"orch/engine/rollout"
	"orch/engine/simulate"
)

// simulationValue is what t.simulate returns.
func simulationValue(p *simulate.Played) starlark.Value {
	d := starlark.StringDict{
		"release":  starlark.String(p.Outcome),
		"duration": seconds(p.Took),
		"events":   stringList(p.Events),
	}
	of := func(name string, more []param, do func(*call, *simulate.ServicePlayed) (starlark.Value, error)) {
		m := &method{name: name, params: append([]param{{name: "service", position: true}}, more...)}
		m.do = func(_ *tester, c *call) (starlark.Value, error) {
			s, err := c.served(p)
			if err != nil {
				return nil, err
			}
			return do(c, s)
		}
		d[name] = m.builtin(nil)
	}
	plain := func(name string, value func(*simulate.ServicePlayed) starlark.Value) {
		of(name, nil, func(_ *call, s *simulate.ServicePlayed) (starlark.Value, error) { return value(s), nil })
	}
	plain("outcome", func(s *simulate.ServicePlayed) starlark.Value { return starlark.String(s.Outcome) })
	plain("ops", func(s *simulate.ServicePlayed) starlark.Value { return opsValue(s.Ops) })
	plain("tasks", func(s *simulate.ServicePlayed) starlark.Value { return tasksValue(s.Tasks) })
	plain("max_unavailable", func(s *simulate.ServicePlayed) starlark.Value { return starlark.MakeInt(s.Unavailable) })
	plain("max_surge", func(s *simulate.ServicePlayed) starlark.Value { return starlark.MakeInt(s.Surge) })
	of("running", []param{{name: "version", text: "None", position: true}}, running)
	reason := &method{name: "reason", params: []param{{name: "service", text: "None", position: true}}}
	reason.do = func(_ *tester, c *call) (starlark.Value, error) {
		if c.value("service") == starlark.None {
			return starlark.String(p.Reason), nil
		}
		s, err := c.served(p)
		if err != nil {
			return nil, err
		}
		return starlark.String(s.Reason), nil
	}
	d["reason"] = reason.builtin(nil)
	v := starlarkstruct.FromStringDict(starlark.String("simulation"), d)
	v.Freeze()
	return v
}

// served is the service that a call names.
func (c *call) served(p *simulate.Played) (*simulate.ServicePlayed, error) {
	name, err := c.text("service")
	if err != nil {
		return nil, err
	}
	if s := p.Services[name]; s != nil {
		return s, nil
	}
	return nil, hinted(fmt.Errorf("%s: the simulation has no service %q", c.method.name, name), name, slices.Sorted(maps.Keys(p.Services)))
}

func running(c *call, s *simulate.ServicePlayed) (starlark.Value, error) {
	version, err := c.text("version")
	if err != nil {
		return nil, err
	}
	if version != "" && version != string(simulate.OldVersion) && version != string(simulate.NewVersion) {
		return nil, c.errorf("version", `must be "old" or "new", not %q`, version)
	}
	n := 0
	for _, t := range s.Tasks {
		if t.Serving && (version == "" || version == string(t.Version)) {
			n++
		}
	}
	return starlark.MakeInt(n), nil
}

func opsValue(ops []simulate.PlayedOp) starlark.Value {
	l := starlark.NewList(nil)
	for _, op := range ops {
		ended := starlark.Value(starlark.None)
		if op.Ended >= 0 {
			ended = seconds(op.Ended)
		}
		l.Append(starlarkstruct.FromStringDict(starlark.String("op"), starlark.StringDict{
			"kind": starlark.String(op.Kind), "text": starlark.String(rollout.Text(op.Op)), "slots": stringList(op.Slots), "failed": stringList(op.Failed),
			"nodes": stringList(op.On),
			"ok":    starlark.Bool(op.Ok), "reason": starlark.String(op.Reason), "engine": starlark.Bool(op.Engine), "at": seconds(op.At), "ended": ended,
		}))
	}
	return frozen(l)
}

func tasksValue(tasks []simulate.PlayedTask) starlark.Value {
	l := starlark.NewList(nil)
	for _, t := range tasks {
		l.Append(starlarkstruct.FromStringDict(starlark.String("task"), starlark.StringDict{
			"slot": starlark.String(t.Slot), "version": starlark.String(t.Version), "node": starlark.String(t.Node), "state": starlark.String(t.State),
		}))
	}
	return frozen(l)
}

func stringList(all []string) starlark.Value {
	l := starlark.NewList(nil)
	for _, s := range all {
		l.Append(starlark.String(s))
	}
	return frozen(l)
}

func frozen(v starlark.Value) starlark.Value {
	v.Freeze()
	return v
}

// seconds is an int where it can be.
func seconds(d time.Duration) starlark.Value {
	if d%time.Second == 0 {
		return starlark.MakeInt64(int64(d / time.Second))
	}
	return starlark.Float(d.Seconds())
}

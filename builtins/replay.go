package builtins

import (
	"errors"
	"slices"
	"strings"

	"go.starlark.net/starlark"
	"go.starlark.net/starlarkstruct"

	"orch/engine/api"
	"orch/engine/spec"
)

// ErrSuspended ends the call of a strategy that asked for an op which its
// journal doesn't hold: Replay.Asked is it. Starlark can't catch errors, so a
// strategy never outlives its question.
var ErrSuspended = errors.New("suspended")

// ErrReported ends a call that can't go on after what is among the Problems
// of its Run.
var ErrReported = errors.New("reported")

// Replay is r, the first argument of a strategy, for one call of it: ops that
// the journal holds return what came of them.
type Replay struct {
	rollout *api.Rollout
	journal []*api.Op
	at      int     // in journal, of the op that comes next
	asked   *api.Op // that the journal doesn't hold

	slots    []string        // keys with the service's name, as strategies know them
	known    map[string]bool // the same; nil: not made
	surged   map[string]bool // slots of surges
	groups   []string        // names of surges
	old, new starlark.Value  // made when they are looked at
}

var _ starlark.HasAttrs = (*Replay)(nil)

// NewReplay begins a replay; the journal's first op is "begin". Nothing that
// it is given is changed, now or later.
func NewReplay(r *api.Rollout, journal []*api.Op) (*Replay, error) {
	if len(journal) == 0 || journal[0].Kind != "begin" {
		return nil, errors.New(`the journal doesn't start with "begin"`)
	}
	p := &Replay{rollout: r, journal: journal, at: 1, slots: make([]string, 0, len(journal[0].Slots))}
	for _, id := range journal[0].Slots {
		p.slots = append(p.slots, short(id))
	}
	return p, nil
}

// Asked is the op that ended the call with ErrSuspended.
func (p *Replay) Asked() *api.Op { return p.asked }

// next is the op of the journal that comes next; nil at its end.
func (p *Replay) next() *api.Op {
	if p.at < len(p.journal) {
		return p.journal[p.at]
	}
	return nil
}

func (p *Replay) String() string        { return "<rollout of " + p.rollout.ServiceId + ">" }
func (p *Replay) Type() string          { return "r" }
func (p *Replay) Freeze()               {}
func (p *Replay) Truth() starlark.Bool  { return true }
func (p *Replay) Hash() (uint32, error) { return 0, errors.New("r can't be a key") }

// AttrNames implements starlark.HasAttrs.
func (p *Replay) AttrNames() []string {
	names := []string{"mode", "new", "old", "replicas", "service"}
	for name := range methods {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Attr implements starlark.HasAttrs.
func (p *Replay) Attr(name string) (starlark.Value, error) {
	switch name {
	case "service":
		_, service := spec.SplitServiceID(p.rollout.ServiceId)
		return starlark.String(service), nil
	case "mode":
		return starlark.String(p.rollout.GetTo().GetMode()), nil
	case "replicas":
		return starlark.MakeInt(p.replicas()), nil
	case "old":
		if p.old == nil {
			p.old = versionStruct(p.rollout.From, p.rollout.FromVersion)
		}
		return p.old, nil
	case "new":
		if p.new == nil {
			p.new = versionStruct(p.rollout.To, p.rollout.ToVersion)
		}
		return p.new, nil
	}
	if m, ok := methods[name]; ok {
		return m.table.builtinFor(func(c *call) (starlark.Value, error) {
			if c.bad {
				return nil, ErrReported
			}
			return m.do(p, c)
		}), nil
	}
	return nil, nil
}

func (p *Replay) replicas() int { return int(p.journal[0].Replicas) }

// versionStruct is a service with the version that it gives its tasks.
func versionStruct(s *api.ServiceSpec, version string) starlark.Value {
	d := serviceFields(s)
	d["version"] = starlark.String(version)
	v := starlarkstruct.FromStringDict(starlark.String("service"), d)
	v.Freeze()
	return v
}

// short is a slot's name without its stack's: "web.1" of "app/web.1".
func short(id string) string {
	_, name, ok := strings.Cut(id, "/")
	if !ok {
		return id
	}
	return name
}

// id is a slot's id by its short name.
func (p *Replay) id(slot string) string {
	stack, _ := spec.SplitServiceID(p.rollout.ServiceId)
	return spec.ServiceID(stack, slot)
}

// do returns what came of an op, or ends the call where that isn't known.
func (p *Replay) do(c *call, op *api.Op) (starlark.Value, error) {
	if c.bad || len(c.run.Problems) > 0 {
		return nil, ErrReported
	}
	op.Origin = c.origin()
	was := p.next()
	if was == nil {
		p.asked = op
		return nil, ErrSuspended
	}
	if !sameAsk(op, was) {
		return nil, p.diverged(op, was)
	}
	p.at++
	p.learn(was)
	return resultOf(was), nil
}

// learn follows what an op did to the service's slots.
func (p *Replay) learn(op *api.Op) {
	switch op.Kind {
	case "surge":
		if p.surged == nil {
			p.surged = map[string]bool{}
		}
		for _, id := range op.Slots {
			p.surged[short(id)] = true
		}
		if !slices.Contains(p.groups, op.Group) {
			p.groups = append(p.groups, op.Group)
		}
	case "adopt":
		gone := map[string]bool{}
		for _, id := range op.Removed {
			gone[short(id)] = true
		}
		kept := slices.DeleteFunc(slices.Clone(p.slots), func(s string) bool { return gone[s] })
		for _, id := range op.Slots {
			if s := short(id); !slices.Contains(kept, s) {
				kept = append(kept, s)
			}
			delete(p.surged, short(id))
		}
		p.slots, p.known = kept, nil
	case "drop":
		for _, id := range op.Slots {
			delete(p.surged, short(id))
		}
	}
}

// done is the result of an op on nothing: it takes no time and no journal.
func done() starlark.Value { return resultOf(&api.Op{Ok: true}) }

func resultOf(op *api.Op) starlark.Value {
	list := func(ids []string) starlark.Value {
		all := make([]starlark.Value, len(ids))
		for i, id := range ids {
			all[i] = starlark.String(short(id))
		}
		return starlark.NewList(all)
	}
	v := starlarkstruct.FromStringDict(starlark.String("result"), starlark.StringDict{
		"ok": starlark.Bool(op.Ok), "reason": starlark.String(op.Reason),
		"slots": list(op.Slots), "failed": list(op.Failed), "removed": list(op.Removed),
	})
	v.Freeze()
	return v
}

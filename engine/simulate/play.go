package simulate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"orch/engine/api"
	"orch/engine/rollout"
	"orch/engine/spec"
	"orch/engine/state"
	"orch/engine/status"
)

// Play is a release to play through, on a cluster that was brought to an
// older one before.
type Play struct {
	Before, After Source
	Nodes         []*api.Node
	Strategy      rollout.Strategy
	// Fate says how a task of a service and slot ("web.1") goes; fresh ones
	// were made since the release began. nil: all go well.
	Fate func(t *api.Task, is Version, fresh bool) Fate
	// Probes answers a service's probes in turn, the last one again and again;
	// others are good.
	Probes map[string][]bool
	// Signals are those that an operator sends a minute after a rollout began
	// to wait for it; All sends any.
	Signals []string
	All     bool
	// Down says when nodes go down, by name: so long after the release began,
	// or, if negative, once its first new task is ready.
	Down map[string]time.Duration
	// Kill says whether the leader dies once a service's op, from 0, was begun.
	Kill func(service string, op int) bool
}

// Version says which of a Play's versions a task has.
type Version string

// A service that doesn't change has only the old one.
const (
	OldVersion Version = "old"
	NewVersion Version = "new"
)

const (
	signalAfter = time.Minute     // operators are quick
	failover    = 3 * time.Second // how long nobody leads
	steadyIn    = 12 * time.Hour  // how long the older release may take
)

var errKilled = errors.New("the leader was killed")

// Steady brings a cluster to the older release. The error says why that isn't
// possible.
func (p *Play) Steady(ctx context.Context) (*World, error) {
	w := New()
	p.equip(w, time.Time{})
	for _, n := range p.Nodes {
		if err := w.NodeUp(n); err != nil {
			return nil, err
		}
	}
	r, err := w.ApplySource(p.Before, "run")
	if err != nil {
		return nil, fmt.Errorf("the older release is refused: %w", err)
	}
	begun := w.Now
	for turn := 0; ; turn++ {
		if err := w.Settle(); err != nil {
			return nil, err
		}
		next := w.nextWake()
		rel := w.State.View().Release(p.Before.Spec.Name, r.Release)
		switch {
		case rel.GetOutcome() == "succeeded":
			return w, w.Advance(time.Minute) // so that its tasks are older than any of the next
		case rel.GetOutcome() != "" || next.IsZero() || next.Sub(begun) > steadyIn || turn > mostTurns:
			return nil, fmt.Errorf("the older release doesn't come up: %s", w.why(rel))
		case ctx.Err() != nil:
			return nil, fmt.Errorf("the older release takes too long: %w", context.Cause(ctx))
		}
		w.Now = next
	}
}

// equip gives a world what the Play says of strategies and tasks.
func (p *Play) equip(w *World, begun time.Time) {
	w.Strategy, w.Prober, w.JobsEnd = p.Strategy, &answers{left: p.Probes, given: map[string]bool{}, turns: map[string]int{}}, true
	if p.Fate == nil {
		return
	}
	w.Fate = func(t *api.Task) Fate {
		return p.Fate(t, p.version(t), !begun.IsZero() && !t.CreatedAt.AsTime().Before(begun))
	}
}

func (p *Play) version(t *api.Task) Version {
	if _, name := spec.SplitServiceID(t.ServiceId); t.Version == VersionOf(p.Before.Spec, name) {
		return OldVersion
	}
	return NewVersion
}

// VersionOf is the version of a service in a stack; "": it has none.
func VersionOf(s *api.StackSpec, service string) string {
	for _, svc := range s.GetServices() {
		if svc.Name == service {
			return spec.Version(svc.Task)
		}
	}
	return ""
}

// why says what keeps a release from its end.
func (w *World) why(rel *api.Release) string {
	var all []string
	v := w.State.View()
	for _, s := range rel.GetSteps() {
		svc := v.Service(spec.ServiceID(rel.Stack, s.Service))
		if s.State == "done" || svc == nil {
			continue
		}
		is := status.Service(v, svc, w.Now)
		all = append(all, fmt.Sprintf("%s is %s: %s", s.Service, is.State, is.Reason))
	}
	if len(all) == 0 {
		return strings.TrimSpace(rel.GetOutcome() + " " + rel.GetReason())
	}
	return strings.Join(all, "; ")
}

// Run plays the release on a copy of a steady world, until it has ended, or
// only an operator could move it on.
func (p *Play) Run(ctx context.Context, steady *World) (*Played, error) {
	w, err := From(steady.State.View(), steady.Now)
	if err != nil {
		return nil, err
	}
	r := &run{Play: p, World: w, begun: w.Now, down: map[string]bool{}, killed: map[string]bool{}}
	p.equip(w, r.begun)
	r.out = newPlayed(p, w)
	w.Committed = r.committed
	res, err := w.ApplySource(p.After, "run")
	if err := r.survive(err); err != nil {
		return nil, fmt.Errorf("the release is refused: %w", err)
	}
	r.number = res.Release
	for range mostTurns {
		if err := r.survive(w.Settle()); err != nil {
			return nil, err
		}
		did, next, err := r.outside()
		if err != nil {
			return nil, err
		}
		if did || r.again {
			r.again = false
			continue
		}
		if r.over() || next.IsZero() || next.Sub(r.begun) > farthest {
			break
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("the simulation takes too long: %w", context.Cause(ctx))
		}
		w.Now = next
	}
	return r.out.end(r.number), nil
}

// run is a Play under way.
type run struct {
	*Play
	*World
	begun    time.Time
	number   uint64 // of the release
	newReady bool
	again    bool // a new leader has yet to look
	down     map[string]bool
	killed   map[string]bool
	out      *Played
}

// survive lets another leader go on where one was killed: what the old one had
// still meant to propose is lost.
func (r *run) survive(err error) error {
	if !errors.Is(err, errKilled) {
		return err
	}
	if err := r.KillLeader(); err != nil {
		return err
	}
	r.Now = r.Now.Add(failover)
	r.again = true
	return nil
}

func (r *run) committed(v state.View, deltas []state.Delta) error {
	var dead error
	for _, d := range deltas {
		switch after := d.After.(type) {
		case *api.Task:
			r.newReady = r.newReady || after.Status.GetReady() && !after.CreatedAt.AsTime().Before(r.begun)
		case *api.Rollout:
			before, _ := d.Before.(*api.Rollout)
			_, name := spec.SplitServiceID(after.ServiceId)
			for op := len(before.GetJournal()); op < len(after.Journal); op++ {
				if key := fmt.Sprint(after.Id, " ", op); r.Kill != nil && !r.killed[key] && r.Kill(name, op) {
					r.killed[key] = true
					dead = errKilled
				}
			}
		}
	}
	r.out.note(v, r.World, deltas)
	return dead
}

// outside does what comes from outside the cluster and is due now; next is
// when anything is due.
func (r *run) outside() (did bool, next time.Time, err error) {
	next = r.nextWake()
	due := func(at time.Time) bool {
		if !r.Now.Before(at) {
			return true
		}
		if next.IsZero() || at.Before(next) {
			next = at
		}
		return false
	}
	for name, after := range r.Down {
		if r.down[name] || after < 0 && !r.newReady || !due(r.begun.Add(after)) {
			continue
		}
		r.down[name], did = true, true
		if err := r.survive(r.NodeDown(name)); err != nil {
			return did, next, err
		}
	}
	v := r.State.View()
	for _, svc := range v.ServicesOf(r.After.Spec.Name) {
		op := waitsForSignal(v.Rollout(svc.RolloutId))
		if op == nil || !r.All && !slices.Contains(r.Signals, op.Text) || !due(op.BegunAt.AsTime().Add(signalAfter)) {
			continue
		}
		did = true
		if err := r.survive(r.Signal(svc.Id, op.Text)); err != nil {
			return did, next, err
		}
	}
	return did, next, nil
}

// waitsForSignal is the op in which a rollout waits for an operator, or nil.
func waitsForSignal(ro *api.Rollout) *api.Op {
	if n := len(ro.GetJournal()); n > 0 && ro.Outcome == "" && ro.Journal[n-1].Kind == "wait_signal" && ro.Journal[n-1].EndedAt == nil {
		return ro.Journal[n-1]
	}
	return nil
}

// over says that the release has ended, or that all of it which is under way
// waits for an operator.
func (r *run) over() bool {
	v := r.State.View()
	rel := v.Release(r.After.Spec.Name, r.number)
	if rel.GetOutcome() != "" {
		return true
	}
	halted := 0
	for _, s := range rel.GetSteps() {
		if s.State != "begun" && s.State != "restoring" {
			continue
		}
		svc := v.Service(spec.ServiceID(rel.Stack, s.Service))
		ro := v.Rollout(svc.GetRolloutId())
		if ro.GetRelease() != rel.Number || !state.Halted(ro) {
			return false
		}
		halted++
	}
	return halted > 0
}

// answers are a Prober's, as a Play gives them. What was answered once stays:
// a new leader asks again.
type answers struct {
	left  map[string][]bool // by service
	turns map[string]int
	given map[string]bool // by key
}

// Probe implements rollout.Prober.
func (a *answers) Probe(key string, ask rollout.ProbeOf) *api.Sample {
	ok, known := a.given[key]
	if !known {
		_, name := spec.SplitServiceID(ask.Service)
		ok = true
		if all := a.left[name]; len(all) > 0 {
			ok = all[min(a.turns[name], len(all)-1)]
		}
		a.turns[name]++
		a.given[key] = ok
	}
	if ok {
		return &api.Sample{Ok: true, Reason: "supposed to be good"}
	}
	return &api.Sample{Reason: rollout.ProbeText(ask.Probe) + " is supposed to be bad"}
}

// Older is a release as it may have been before this one: each service and job
// runs another image, or, where there is none, other tasks.
func Older(s *api.StackSpec) *api.StackSpec {
	s = proto.CloneOf(s)
	for _, svc := range s.Services {
		was := spec.Version(svc.Task)
		if svc.Task.Image != "" {
			svc.Task.Image = untagged(svc.Task.Image) + ":older"
		}
		if spec.Version(svc.Task) == was {
			svc.Task.Generation++
		}
	}
	return s
}

func untagged(image string) string {
	image, _, _ = strings.Cut(image, "@")
	if i := strings.LastIndexByte(image, ':'); i > strings.LastIndexByte(image, '/') {
		image = image[:i]
	}
	return image
}

package control

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"orch/engine/api"
	"orch/engine/rollout"
	"orch/engine/spec"
	"orch/engine/state"
)

// Store is what the loop needs of the replicated state.
type Store interface {
	Propose(context.Context, *api.Command) (state.Result, error)
	View() state.View
	Barrier(context.Context) error
}

// Watcher tells what changed.
type Watcher interface {
	Wake() <-chan struct{}
	Take() (changes []state.Change, all bool)
	Stop()
}

// Follower knows how far the nodes have followed the endpoint table.
type Follower interface {
	Followed() state.Followed
	// News has a value when that changed.
	News() <-chan struct{}
}

// Loop is the leader's.
type Loop struct {
	Store    Store
	Watch    func() Watcher
	Strategy rollout.Strategy
	Asker    Asker // nil: probes can't be asked
	Follower Follower
	Logger   *slog.Logger
	// Ready is called once the loop has seen all that was committed before
	// it began to lead.
	Ready func()
}

// Run leads until ctx ends. It returns early only when this engine can't
// write the log any more; leadership is then somebody else's matter.
func (l *Loop) Run(ctx context.Context) error {
	if err := l.Store.Barrier(ctx); err != nil {
		return err
	}
	w := l.Watch()
	defer w.Stop()
	if l.Ready != nil {
		l.Ready()
	}
	ctx, stop := context.WithCancel(ctx)
	asked := newAsked(ctx, l.Strategy, l.Asker)
	defer asked.under.Wait()
	defer stop()
	d := dirty{services: map[string]bool{}, wake: map[string]time.Time{}}
	d.everything(l.Store.View())
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		now := time.Now()
		pass := Plan(l.Store.View(), d.take(now), World{asked.world(), l.Follower.Followed()}, now)
		d.note(pass)
		for _, changes := range pass.Changes {
			_, err := l.Store.Propose(ctx, &api.Command{
				Time: timestamppb.New(now),
				Kind: &api.Command_Changes{Changes: changes},
			})
			var refusal *state.Refusal
			switch {
			case errors.As(err, &refusal):
				l.Logger.Error("the log refused a change of the control loop", "error", err)
			case err != nil:
				return err
			}
		}
		// What was just proposed is seen at once; other news is gathered for
		// as long as the pass took, so that a large cluster is looked at in
		// few large steps.
		pause := min(time.Since(now), 50*time.Millisecond)
		if len(pass.Changes) == 0 {
			timer.Reset(d.sleep(time.Now()))
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-timer.C:
				if len(d.wake) == 0 {
					d.everything(l.Store.View())
				}
			case <-asked.told:
			case <-l.Follower.News():
				d.followed()
			case <-w.Wake():
				if pause > time.Millisecond && !pauseFor(ctx, pause) {
					return ctx.Err()
				}
			}
		}
		changes, all := w.Take()
		v := l.Store.View()
		for _, id := range asked.take() {
			d.services[id] = true
		}
		if all {
			d.everything(v)
		}
		d.changed(v, changes)
	}
}

func pauseFor(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// dirty knows which services to look at, and when.
type dirty struct {
	services map[string]bool
	wake     map[string]time.Time
	unplaced map[string]bool
	follows  map[string]bool
}

// idle is how long the loop sleeps at most: looking at everything now and
// then mends whatever an event was missed for.
const idle = 30 * time.Second

func (d *dirty) everything(v state.View) {
	for _, s := range v.Services() {
		d.services[s.Id] = true
	}
}

func (d *dirty) take(now time.Time) []string {
	for id, at := range d.wake {
		if !now.Before(at) {
			d.services[id] = true
			delete(d.wake, id)
		}
	}
	ids := make([]string, 0, len(d.services))
	for id := range d.services {
		ids = append(ids, id)
	}
	clear(d.services)
	slices.Sort(ids)
	for _, id := range ids {
		delete(d.wake, id)
		delete(d.unplaced, id)
		delete(d.follows, id)
	}
	return ids
}

func (d *dirty) note(p Pass) {
	for id, at := range p.Wake {
		d.wake[id] = at
	}
	if d.unplaced == nil {
		d.unplaced = map[string]bool{}
	}
	for _, id := range p.Unplaced {
		d.unplaced[id] = true
	}
	if d.follows == nil {
		d.follows = map[string]bool{}
	}
	for _, id := range p.Follows {
		d.follows[id] = true
	}
}

// followed marks the services that waited for nodes to follow.
func (d *dirty) followed() {
	for id := range d.follows {
		d.services[id] = true
	}
}

func (d *dirty) sleep(now time.Time) time.Duration {
	next := now.Add(idle)
	for _, at := range d.wake {
		if at.Before(next) {
			next = at
		}
	}
	return max(next.Sub(now), 0)
}

// changed marks the services that deltas concern: their own, those that
// depend on them, and after news of nodes or room those that found none.
func (d *dirty) changed(v state.View, changes []state.Change) {
	touched := map[string]bool{} // whose neighbours to look at
	room := false
	for _, c := range changes {
		for _, delta := range c.Deltas {
			row := delta.After
			if row == nil {
				row = delta.Before
			}
			switch r := row.(type) {
			case *api.Task:
				d.services[r.ServiceId] = true
				touched[r.ServiceId] = true
				room = room || delta.After == nil || state.Ended(r.Status.GetState())
			case *api.Slot:
				d.services[r.ServiceId] = true
			case *api.Rollout:
				d.services[r.ServiceId] = true
			case *api.Service:
				d.services[r.Id] = true
				touched[r.Id] = true
				if was, ok := delta.Before.(*api.Service); ok && was.Run != r.Run {
					d.waiting(v, r.Stack)
				}
			case *api.Release:
				d.release(delta.Before, r)
			case *api.Stack:
				for _, s := range v.ServicesOf(r.Name) {
					d.services[s.Id] = true
				}
			case *api.Node:
				d.everything(v)
			}
		}
	}
	d.neighbours(v, touched)
	if room {
		for id := range d.unplaced {
			d.services[id] = true
		}
	}
}

// release marks the services whose steps in a release have changed, and, when
// it has come to its end or goes back, all of its services.
func (d *dirty) release(before any, r *api.Release) {
	was, _ := before.(*api.Release)
	all := was != nil && (was.Phase != r.Phase || was.Outcome != r.Outcome)
	for _, s := range r.Steps {
		if all || state.Step(was, s.Service).GetState() != s.State {
			d.services[spec.ServiceID(r.Stack, s.Service)] = true
		}
	}
}

// waiting marks the services of a stack whose rollouts may wait for a job.
func (d *dirty) waiting(v state.View, stack string) {
	for _, s := range v.ServicesOf(stack) {
		if r := v.Rollout(s.RolloutId); r != nil && r.Outcome == "" {
			d.services[s.Id] = true
		}
	}
}

// neighbours marks the services that wait for those named, and, since on the
// way out the order is the reverse, those that they wait for.
func (d *dirty) neighbours(v state.View, changed map[string]bool) {
	seen := map[string]bool{}
	for id := range changed {
		stack, _ := spec.SplitServiceID(id)
		if seen[stack] {
			continue
		}
		seen[stack] = true
		for _, svc := range v.ServicesOf(stack) {
			for _, dep := range svc.Spec.DependsOn {
				on := spec.ServiceID(stack, dep.Service)
				if changed[on] {
					d.services[svc.Id] = true
				}
				if changed[svc.Id] {
					d.services[on] = true
				}
			}
		}
	}
}

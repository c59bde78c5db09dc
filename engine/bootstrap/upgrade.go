package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"orch/engine/api"
)

// Upgrade brings the binary and the service of a running cluster's hosts up to
// date: agents in batches of Parallel, then engines one by one, the leader
// last. Each must be up again, an engine with all of the log, before the next
// begins; the first that fails ends it. It doesn't begin unless every engine
// is there.
func Upgrade(ctx context.Context, o Options) (*Result, error) {
	r, err := begin(&o)
	if err != nil {
		return nil, err
	}
	defer r.hangUp()
	r.look(ctx)
	result := &Result{}
	var broken []string
	for _, s := range r.all {
		switch _, _, role := s.Facts.member(); {
		case s.Err != nil:
			broken = append(broken, s.String()+": "+s.Err.Error())
		case s.Facts.Status == nil:
			broken = append(broken, s.String()+": no orch runs on it: orch bootstrap makes or mends it")
		case o.Binaries[s.Facts.Arch] == nil:
			broken = append(broken, fmt.Sprintf("%s: its architecture is %s: --binary-%s=PATH", s, s.Facts.Arch, s.Facts.Arch))
		default:
			s.Role = role
		}
	}
	if len(broken) > 0 {
		return nil, fmt.Errorf("nothing was upgraded:\n  %s", strings.Join(broken, "\n  "))
	}
	r.id, r.Cluster = clusterOf(r.all)
	result.Cluster = r.Cluster
	r.door = o.Join
	c, err := r.cluster(ctx, r.Patience)
	if err != nil {
		return nil, fmt.Errorf("nothing was upgraded: %w", err)
	}
	info, err := r.settled(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("nothing was upgraded: %w", err)
	}
	batches := order(r.all, info.Leader)
	plans := map[*Seen][]Op{}
	for _, s := range slices.Concat(batches...) {
		for _, op := range plan(s, r.Options, false, nil) {
			if slices.Contains([]string{"upload", "service", "restart", "verify"}, op.Kind) {
				plans[s] = append(plans[s], op)
			}
		}
		result.Plans = append(result.Plans, HostPlan{s.Name, s.Role, plans[s]})
	}
	if o.DryRun {
		return result, nil
	}
	for _, batch := range batches {
		each(ctx, o.Parallel, batch, func(s *Seen) {
			r.host(ctx, s, plans[s])
			if len(plans[s]) > 0 && s.Role == "engine" && r.failures() == nil {
				if err := r.caughtUp(ctx, s); err != nil {
					r.fail(s.Host, err)
					r.say(Event{Host: s.Name, Op: "catch up", State: "failed", Text: err.Error()})
				}
			}
		})
		for _, s := range batch {
			if len(plans[s]) > 0 && r.failed[s.Host] == nil {
				result.Changed++
			}
		}
		if result.Failed = r.failures(); len(result.Failed) > 0 {
			return result, fmt.Errorf("the upgrade stopped at %s; hosts after it are as they were: mend it and run it again", result.Failed[0])
		}
		if ctx.Err() != nil {
			return result, ctx.Err()
		}
	}
	return result, nil
}

// settling is how long an engine that has just come back may take to be heard.
const settling = 10 * time.Second

// settled waits until the cluster is whole.
func (r *run) settled(ctx context.Context, c Cluster) (info *api.InfoResponse, err error) {
	began := ctx
	ctx, cancel := context.WithTimeout(ctx, settling)
	defer cancel()
	var last error
	err = poll(ctx, func() (bool, error) {
		if info, last = c.Info(ctx); last == nil {
			last = whole(info)
		}
		return last == nil, nil
	})
	if err != nil && began.Err() == nil {
		err = last
	}
	return info, err
}

// whole says what keeps engines from being taken away one by one.
func whole(info *api.InfoResponse) error {
	if info.Leader == "" {
		return fmt.Errorf("the cluster has no leader%s", colon(info.Reason))
	}
	for _, e := range info.Engines {
		if e.State != "leader" && e.State != "voter" {
			return fmt.Errorf("engine %s is %s%s: every engine must be there, for one at a time is taken away", e.Name, e.State, colon(e.Reason))
		}
	}
	return nil
}

// order is agents, at once, then engine by engine, the leader last.
func order(all []*Seen, leader string) [][]*Seen {
	var agents, engines, last []*Seen
	for _, s := range all {
		switch _, id, role := s.Facts.member(); {
		case role != "engine":
			agents = append(agents, s)
		case id == leader:
			last = append(last, s)
		default:
			engines = append(engines, s)
		}
	}
	var batches [][]*Seen
	if len(agents) > 0 {
		batches = append(batches, agents)
	}
	for _, e := range append(engines, last...) {
		batches = append(batches, []*Seen{e})
	}
	return batches
}

// caughtUp waits until an engine is a voter that has all of the log that there
// is now, and so is every other.
func (r *run) caughtUp(ctx context.Context, s *Seen) error {
	began := ctx
	ctx, cancel := context.WithTimeout(ctx, r.Patience)
	defer cancel()
	_, id, _ := s.Facts.member()
	last := errors.New("the cluster does not answer")
	var goal uint64
	err := poll(ctx, func() (bool, error) {
		c, err := r.cluster(ctx, r.Patience)
		if err != nil {
			last = err
			return false, nil
		}
		info, err := c.Info(ctx)
		if err != nil {
			last = err
			return false, nil
		}
		if goal == 0 {
			goal = info.AppliedIndex
		}
		if last = whole(info); last != nil {
			return false, nil
		}
		for _, e := range info.Engines {
			if e.NodeId == id && e.State == "voter" && e.Applied < goal {
				last = fmt.Errorf("engine %s has %d of %d entries of the log", s, e.Applied, goal)
				return false, nil
			}
		}
		return true, nil
	})
	if err != nil && began.Err() == nil {
		return fmt.Errorf("it is not caught up after %s: %w", r.Patience, last)
	}
	return err
}

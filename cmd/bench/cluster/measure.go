package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"orch/cmd/internal/hosts"
)

// system is a cluster that can be measured: it runs one service of twelve
// replicas.
type system interface {
	// form makes the cluster of all hosts, each of which decides and runs
	// tasks, and end takes it away with all it runs.
	form(ctx context.Context) error
	end(ctx context.Context) error
	// whole waits until every host is a member that the others reach.
	whole(ctx context.Context) error
	leader(ctx context.Context) (int, error)
	// deploy declares the service with an image; it may return before that is
	// so. An update is by two, start-first, and watches each for 0.1 s.
	deploy(ctx context.Context, image string) error
	// fail updates to an image that can't run, and returns once that has been
	// taken back.
	fail(ctx context.Context, image string) error
	remove(ctx context.Context) error
	// write changes the cluster's state through a host.
	write(ctx context.Context, through *hosts.Host, name string) error
	drain(ctx context.Context, h *hosts.Host) error
	activate(ctx context.Context, h *hosts.Host) error
	// memory is what the cluster's process on a host takes, in bytes.
	memory(h *hosts.Host) (uint64, error)
}

// stopper is a system whose process on one host ends on a signal while tasks
// run on.
type stopper interface {
	stop(h *hosts.Host, signal syscall.Signal) error
	start(ctx context.Context, h *hosts.Host) error
}

// meter measures one system.
type meter struct {
	*world
	system
	add    func(what string, took time.Duration)
	writes int
}

// measure goes through all measures, in an order in which each leaves what
// the next needs. One that fails is told of and left out.
func measure(ctx context.Context, w *world, s system, rounds int, t column) error {
	before, err := memory(w, (&swarm{world: w}).memory)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := s.form(ctx); err != nil {
		return errors.Join(err, s.end(context.WithoutCancel(ctx)))
	}
	t.add(form, time.Since(began))
	defer func() {
		if err := s.end(context.WithoutCancel(ctx)); err != nil {
			fmt.Fprintf(os.Stderr, "bench: %s: cannot end it: %v\n", t.name, err)
		}
	}()
	m := &meter{world: w, system: s, add: t.add}
	for _, part := range []struct {
		name   string
		rounds int
		run    func(context.Context) error
	}{
		{"create", rounds, m.create},
		{"memory", 1, func(context.Context) error { return m.weigh(before, t) }},
		{"update", 1, m.update},
		{"failed update", rounds, m.failed},
		{"crash", 1, func(ctx context.Context) error { return m.crash(ctx, rounds) }},
		{"drain", 1, m.drained},
		{"leader stopped", rounds, m.stopped},
		{"host cut off", 1, m.hostCut},
		{"leader cut off", 1, m.leaderCut},
	} {
		for range part.rounds {
			if err := part.run(ctx); err != nil {
				fmt.Fprintf(os.Stderr, "bench: %s: %s is left out: %v\n", t.name, part.name, err)
				break
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// fresh makes the service anew, so that it is spread over all hosts.
func (m *meter) fresh(ctx context.Context) (time.Duration, error) {
	if err := m.remove(ctx); err != nil {
		return 0, err
	}
	if err := m.until(ctx, m.Hosts, "service removed", count(0)); err != nil {
		return 0, err
	}
	return m.deployed(ctx, image1)
}

// deployed deploys and waits until all twelve have the image.
func (m *meter) deployed(ctx context.Context, image string) (time.Duration, error) {
	return m.during(ctx, func(ctx context.Context) error { return m.deploy(ctx, image) }, "twelve run "+image, func(all []container) bool {
		for _, c := range all {
			if c.Image != image {
				return false
			}
		}
		return len(all) == twelve
	})
}

// during asks for something and watches until it is so: what asks may return
// earlier or later, and ends the watch if it fails.
func (m *meter) during(ctx context.Context, ask func(context.Context) error, what string, good func([]container) bool) (took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	both, ctx := errgroup.WithContext(ctx)
	began := time.Now()
	both.Go(func() error { return ask(ctx) })
	both.Go(func() error {
		err := m.until(ctx, m.Hosts, what, good)
		took = time.Since(began)
		return err
	})
	return took, both.Wait()
}

func (m *meter) create(ctx context.Context) error {
	took, err := m.fresh(ctx)
	if err == nil {
		m.add(create, took)
	}
	return err
}

func (m *meter) weigh(before uint64, t column) error {
	after, err := memory(m.world, m.memory)
	if err != nil {
		return err
	}
	t.note(rss, fmt.Sprintf("%d MiB", after>>20))
	dockerd, err := memory(m.world, (&swarm{world: m.world}).memory)
	t.note(rssDocker, fmt.Sprintf("%+d MiB (from %d)", (int64(dockerd)-int64(before))>>20, before>>20))
	return err
}

// memory is the mean over all hosts.
func memory(w *world, of func(*hosts.Host) (uint64, error)) (sum uint64, err error) {
	for _, h := range w.Hosts {
		n, err := of(h)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum / uint64(len(w.Hosts)), nil
}

func (m *meter) update(ctx context.Context) error {
	took, err := m.deployed(ctx, image2)
	if err == nil {
		m.add(update, took)
	}
	return err
}

// failed updates to what fails at once, and waits for the twelve of before.
func (m *meter) failed(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	began := time.Now()
	if err := m.fail(ctx, imageBad); err != nil {
		return err
	}
	m.add(takenBack, time.Since(began))
	return m.until(ctx, m.Hosts, "twelve run as before", count(twelve))
}

// crash kills one container after the other. They all have run for a while:
// one that just started could be thought to crash in a loop.
func (m *meter) crash(ctx context.Context, rounds int) error {
	if err := pause(ctx, 11*time.Second); err != nil {
		return err
	}
	all, err := m.running(ctx, m.Hosts)
	if err != nil {
		return err
	}
	for _, victim := range all[:min(rounds, len(all))] {
		began := time.Now()
		if err := m.ask(ctx, victim.on, "POST", "/containers/"+victim.ID+"/kill", nil, nil); err != nil {
			return err
		}
		err := m.until(ctx, m.Hosts, "replaced", func(now []container) bool {
			for _, c := range now {
				if c.ID == victim.ID {
					return false
				}
			}
			return len(now) == twelve
		})
		if err != nil {
			return err
		}
		m.add(crash, time.Since(began))
	}
	return nil
}

func (m *meter) drained(ctx context.Context) error {
	if _, err := m.fresh(ctx); err != nil {
		return err
	}
	lead, err := m.leader(ctx)
	if err != nil {
		return err
	}
	out := (lead + 1) % len(m.Hosts)
	took, err := m.during(ctx, func(ctx context.Context) error { return m.drain(ctx, m.Hosts[out]) }, "twelve run elsewhere", func(all []container) bool {
		for _, c := range all {
			if c.on == m.Hosts[out] {
				return false
			}
		}
		return len(all) == twelve
	})
	if err == nil {
		m.add(drain, took)
	}
	return errors.Join(err, m.activate(ctx, m.Hosts[out]))
}

// stopped ends the leader in order.
func (m *meter) stopped(ctx context.Context) error {
	s, ok := m.system.(stopper)
	if !ok {
		return nil
	}
	lead, err := m.leader(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := s.stop(m.Hosts[lead], syscall.SIGTERM); err != nil {
		return err
	}
	err = m.accepted(ctx, m.but(lead))
	took := time.Since(began)
	if err == nil {
		m.add(stopped, took)
	}
	return errors.Join(err, s.start(ctx, m.Hosts[lead]), m.whole(ctx))
}

// hostCut cuts off a host that doesn't lead.
func (m *meter) hostCut(ctx context.Context) error {
	if _, err := m.fresh(ctx); err != nil {
		return err
	}
	lead, err := m.leader(ctx)
	if err != nil {
		return err
	}
	out := (lead + 1) % len(m.Hosts)
	return m.cut(ctx, out, func(began time.Time) error {
		if err := m.until(ctx, m.but(out), "twelve run elsewhere", count(twelve)); err != nil {
			return err
		}
		m.add(hostCut, time.Since(began))
		return nil
	})
}

// leaderCut cuts off the leader, on whose host tasks run.
func (m *meter) leaderCut(ctx context.Context) error {
	if _, err := m.fresh(ctx); err != nil {
		return err
	}
	lead, err := m.leader(ctx)
	if err != nil {
		return err
	}
	return m.cut(ctx, lead, func(began time.Time) error {
		if err := m.accepted(ctx, m.but(lead)); err != nil {
			return err
		}
		m.add(leaderWrite, time.Since(began))
		if err := m.until(ctx, m.but(lead), "twelve run elsewhere", count(twelve)); err != nil {
			return err
		}
		m.add(leaderTasks, time.Since(began))
		return nil
	})
}

// cut cuts a host off for the time of do, and waits until the cluster is whole
// again and nothing runs twice.
func (m *meter) cut(ctx context.Context, host int, do func(began time.Time) error) error {
	began := time.Now()
	if err := m.Hosts[host].Cut(); err != nil {
		return err
	}
	err := do(began)
	healed := time.Now()
	if err = errors.Join(err, m.Hosts[host].Heal(), m.whole(ctx)); err != nil {
		return err
	}
	if err := m.until(ctx, m.Hosts, "no duplicates", count(twelve)); err != nil {
		return err
	}
	m.add(back, time.Since(healed))
	return nil
}

// accepted attempts a write each 100 ms, through the hosts in turn, until one
// is accepted. Attempts that hang don't hide the others.
func (m *meter) accepted(ctx context.Context, through []*hosts.Host) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	done := make(chan struct{}, 1)
	var last error
	failed := make(chan error)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		m.writes++
		name, h := fmt.Sprintf("bench-%d-%d", os.Getpid(), m.writes), through[m.writes%len(through)]
		go func() {
			ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
			defer cancel()
			err := m.write(ctx, h, name)
			if err == nil {
				select {
				case done <- struct{}{}:
				default:
				}
				return
			}
			select {
			case failed <- err:
			case <-ctx.Done():
			}
		}()
	wait:
		for {
			select {
			case <-done:
				return nil
			case last = <-failed:
			case <-tick.C:
				break wait
			case <-ctx.Done():
				return fmt.Errorf("no write is accepted: %w; %v", ctx.Err(), last)
			}
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

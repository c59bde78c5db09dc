package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect"

	"orch/engine/api"
	"orch/engine/api/apiconnect"
	"orch/playbooks"
)

const (
	rolledAtOnce = 1000
	rollAgents   = 50
)

// manyStar are services that all roll at once; longStar is one whose strategy
// takes many ops; probeStar is another stack that wants to be heard meanwhile.
const (
	manyStar = `v = param("v", default = "1")
stack("many", services = [
    service("s%d" % i, command = ["true"], env = {"V": v}, replicas = 2, update = rollout(monitor = "0s"))
    for i in range(1000)
])`
	longStar = `def long(r):
    for i in range(200):
        r.event("step %d" % i)
    return r.succeed()

v = param("v", default = "1")
stack("long", services = [service("s%d" % i, command = ["true"], env = {"V": v}, update = rollout(strategy = long)) for i in range(4)])`
	probeStar = `stack("probe", services = [service("web", command = ["true"])])`
)

// rollouts runs a thousand of them on one engine, with strategies in the
// engine's own child process and agents that speak the real protocol.
func (b *bench) rollouts(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	worker := &playbooks.Worker{}
	defer worker.Close()
	e, done, err := founded(ctx, filepath.Join(b.dir, "rollouts"), playbooks.Sandbox{}, worker)
	if err != nil {
		cancel()
		return err
	}
	defer done()
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	work.Go(func() { _ = e.Run(ctx) })
	<-e.Ready()
	client, closed := operatorOf(e)
	defer closed()
	for i := range rollAgents {
		if err := simulate(ctx, e, client, i, &work); err != nil {
			return err
		}
	}
	run := func(name, text, params string) error {
		file := filepath.Join(b.dir, name+".star")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return err
		}
		r, err := playbooks.Eval(ctx, playbooks.Options{Path: file, ParamsJSON: params})
		if err != nil {
			return err
		}
		_, err = client.Apply(ctx, connect.NewRequest(&api.ApplyRequest{Bundle: r.Bundle, ParamsJson: params}))
		return err
	}
	for name, text := range map[string]string{"many": manyStar, "long": longStar, "probe": probeStar} {
		if err := run(name, text, ""); err != nil {
			return err
		}
		if err := settled(ctx, client, name); err != nil {
			return err
		}
	}
	if err := run("long", longStar, `{"v": "2"}`); err != nil {
		return err
	}
	if err := settled(ctx, client, "long"); err != nil {
		return err
	}
	if err := b.advance(ctx, client); err != nil {
		return err
	}
	count := int32(1)
	scale := func() (time.Duration, error) {
		count++
		return timed(func() error {
			if _, err := client.ScaleService(ctx, connect.NewRequest(&api.ScaleServiceRequest{Service: "probe/web", Replicas: count})); err != nil {
				return err
			}
			return settled(ctx, client, "probe")
		})
	}
	var idle, busy []time.Duration
	for range 15 {
		d, err := scale()
		if err != nil {
			return err
		}
		idle = append(idle, d)
	}
	began := time.Now()
	if err := run("many", manyStar, `{"v": "2"}`); err != nil {
		return err
	}
	for {
		d, err := scale()
		if err != nil {
			return err
		}
		busy = append(busy, d)
		s, err := stackOf(ctx, client, "many")
		if err != nil {
			return err
		}
		if s.Converged {
			break
		}
	}
	b.rows = append(b.rows, row{
		what: fmt.Sprintf("%d rollouts of 2 replicas at once, all through", rolledAtOnce), got: time.Since(began),
		note: fmt.Sprintf("%.0f rollouts/s", rolledAtOnce/time.Since(began).Seconds()),
	}, row{
		what: "another stack scaled meanwhile, to ready (median)", got: median(busy), peer: median(idle), than: "idle",
		note: fmt.Sprintf("%d times, slowest %s", len(busy), short(slices.Max(busy))),
	})
	return nil
}

// advance reads from the journals how long a rollout took from one op to the
// next: asking the strategy, and a log entry on disk.
func (b *bench) advance(ctx context.Context, client apiconnect.ClusterServiceClient) error {
	var all []time.Duration
	for i := range 4 {
		r, err := client.InspectService(ctx, connect.NewRequest(&api.InspectServiceRequest{Service: fmt.Sprintf("long/s%d", i)}))
		if err != nil {
			return err
		}
		for _, ro := range r.Msg.Rollouts {
			for n := 100; n < len(ro.Journal); n++ {
				all = append(all, ro.Journal[n].BegunAt.AsTime().Sub(ro.Journal[n-1].BegunAt.AsTime()))
			}
		}
	}
	if len(all) == 0 {
		return fmt.Errorf("there is no journal of 100 ops")
	}
	slices.Sort(all)
	b.rows = append(b.rows, row{
		what: "a rollout's next op, at 100 to 200 journaled ones (p99)", got: all[len(all)*99/100], peer: 25 * time.Millisecond, than: "limit", goal: "1",
		note: fmt.Sprintf("median %s, of 4 rollouts side by side", short(median(all))),
	})
	return nil
}

func stackOf(ctx context.Context, client apiconnect.ClusterServiceClient, name string) (*api.StackStatus, error) {
	r, err := client.ListServices(ctx, connect.NewRequest(&api.ListServicesRequest{Stack: name}))
	if err != nil {
		return nil, err
	}
	return r.Msg.Stacks[0], nil
}

// settled waits until a stack has converged.
func settled(ctx context.Context, client apiconnect.ClusterServiceClient, name string) error {
	for ctx.Err() == nil {
		s, err := stackOf(ctx, client, name)
		if err != nil {
			return err
		}
		if s.Converged {
			return nil
		}
		if s.Failed {
			return fmt.Errorf("stack %q: %s", name, s.Reason)
		}
		brief(ctx)
	}
	return ctx.Err()
}

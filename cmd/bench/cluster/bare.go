package cluster

import (
	"context"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"orch/cmd/internal/hosts"
)

// bare runs twelve containers with twelve parallel `docker run -d`, four a
// host: on Docker's own bridge, and on a network of their own.
func bare(ctx context.Context, w *world, rounds int, t *table) error {
	for _, h := range w.Hosts {
		if _, err := docker(ctx, h, "network", "create", "orch-bench"); err != nil {
			return err
		}
	}
	for range rounds {
		for network, name := range map[string]string{"bridge": "bare", "orch-bench": "bare, own network"} {
			took, err := runBare(ctx, w, network)
			if err != nil {
				return err
			}
			t.add(name, create, took)
			if err := removeAll(ctx, w); err != nil {
				return err
			}
		}
	}
	for _, h := range w.Hosts {
		if _, err := docker(ctx, h, "network", "rm", "orch-bench"); err != nil {
			return err
		}
	}
	return nil
}

func runBare(ctx context.Context, w *world, network string) (time.Duration, error) {
	began := time.Now()
	var all errgroup.Group
	for i := range twelve {
		all.Go(func() error {
			_, err := docker(ctx, w.Hosts[i%len(w.Hosts)], "run", "-d", "--network", network, image1)
			return err
		})
	}
	err := all.Wait()
	return time.Since(began), err
}

// removeAll removes the bench's containers from all hosts, whoever made them.
func removeAll(ctx context.Context, w *world) error {
	all, err := w.running(ctx, w.Hosts)
	if err != nil {
		return err
	}
	by := map[*hosts.Host][]string{}
	for _, c := range all {
		by[c.on] = append(by[c.on], c.ID)
	}
	var removing errgroup.Group
	for h, ids := range by {
		removing.Go(func() error {
			_, err := docker(ctx, h, strings.Fields("rm -f "+strings.Join(ids, " "))...)
			return err
		})
	}
	return removing.Wait()
}

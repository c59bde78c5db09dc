// Package cluster measures what a cluster of three hosts does, on hosts in
// namespaces of this machine: bare `docker run`, Docker Swarm on the same
// daemons, and orch, in one run. What counts as running is what the hosts'
// Dockers say, for all three alike.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"orch/cmd/internal/hosts"
)

const (
	// image has two tags of one content, to update between.
	image1 = "orch-bench/server:1"
	image2 = "orch-bench/server:2"
	// imageBad ends at once with exit code 1.
	imageBad = "orch-bench/server:bad"
	twelve   = 12
)

// Config says what to measure.
type Config struct {
	Orch   string // the binary
	Rounds int    // of the quick measures; the slow ones have one. Default 3
	Only   string // of "bare", "swarm", "orch", with commas between; empty is all
	Out    io.Writer
}

// Run measures and prints a table. Each system has hosts of its own, one after
// the other, so that none finds what another left. One that fails is left out,
// with the reason; the hosts are gone afterwards in any case.
func Run(ctx context.Context, c Config) error {
	rounds := c.Rounds
	if rounds < 1 {
		rounds = 3
	}
	var t table
	for _, s := range []struct {
		name string
		run  func(context.Context, *world) error
	}{
		{"bare", func(ctx context.Context, w *world) error { return bare(ctx, w, rounds, &t) }},
		{"swarm", func(ctx context.Context, w *world) error {
			return measure(ctx, w, &swarm{world: w}, rounds, t.of("swarm"))
		}},
		{"orch", func(ctx context.Context, w *world) error {
			o, err := newOrch(w, c.Orch)
			if err != nil {
				return err
			}
			return measure(ctx, w, o, rounds, t.of("orch"))
		}},
	} {
		if c.Only != "" && !slices.Contains(strings.Split(c.Only, ","), s.name) || ctx.Err() != nil {
			continue
		}
		fmt.Fprintf(os.Stderr, "bench: %s …\n", s.name)
		if err := onHosts(ctx, s.run); err != nil {
			fmt.Fprintf(os.Stderr, "bench: %s is left out: %v\n", s.name, err)
		}
	}
	return errors.Join(ctx.Err(), t.print(c.Out))
}

// onHosts runs do on three new hosts that have the images.
func onHosts(ctx context.Context, do func(context.Context, *world) error) (err error) {
	set, err := hosts.Up(ctx, 3, hosts.Options{Docker: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, set.Close()) }()
	if err := set.Load(ctx, image1); err != nil {
		return err
	}
	for _, h := range set.Hosts {
		if _, err := docker(ctx, h, "tag", image1, image2); err != nil {
			return err
		}
		id, err := docker(ctx, h, "create", image1)
		if err != nil {
			return err
		}
		if _, err := docker(ctx, h, "commit", "--change", "ENV PORT=none", strings.TrimSpace(id), imageBad); err != nil {
			return err
		}
		if _, err := docker(ctx, h, "rm", strings.TrimSpace(id)); err != nil {
			return err
		}
	}
	return do(ctx, newWorld(set))
}

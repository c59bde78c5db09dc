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
	"time"

	"orch/cmd/internal/hosts"
)

const (
	// image has two tags of one content, to update between.
	image1 = "orch-bench/server:1"
	image2 = "orch-bench/server:2"
	twelve = 12
)

// Config says what to measure.
type Config struct {
	Orch   string // the binary
	Rounds int    // of the quick measures; the slow ones have one. Default 3
	Only   string // of "bare", "swarm", "orch", with commas between; empty is all
	Out    io.Writer
}

// Run measures and prints a table. A system that fails is left out, with the
// reason; the hosts are gone afterwards in any case.
func Run(ctx context.Context, c Config) (err error) {
	if c.Rounds < 1 {
		c.Rounds = 3
	}
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
	}
	w := newWorld(set)
	var table table
	measures := []struct {
		name string
		run  func() error
	}{
		{"bare", func() error { return bare(ctx, w, c.Rounds, &table) }},
		{"swarm", func() error { return measure(ctx, w, &swarm{world: w}, c.Rounds, table.of("swarm")) }},
		{"orch", func() error {
			o, err := newOrch(w, c.Orch)
			if err != nil {
				return err
			}
			return measure(ctx, w, o, c.Rounds, table.of("orch"))
		}},
	}
	for _, m := range measures {
		if c.Only != "" && !slices.Contains(strings.Split(c.Only, ","), m.name) || ctx.Err() != nil {
			continue
		}
		began := time.Now()
		if err := m.run(); err != nil {
			fmt.Fprintf(os.Stderr, "bench: %s: %v\n", m.name, err)
		}
		fmt.Fprintf(os.Stderr, "bench: %s took %v\n", m.name, time.Since(began).Round(time.Second))
	}
	return errors.Join(ctx.Err(), table.print(c.Out))
}

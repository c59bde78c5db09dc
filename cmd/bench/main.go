// Command bench measures orch as a whole, beside a peer or a limit in the same
// run, and prints a table: `make bench`. It judges nothing; these are medians
// of a few rounds on whatever machine it runs on.
//
//	bench [-orch bin/orch] [-rounds 5] [-only eval,start,scale,rollouts,idle,heal,update]
//	bench -cluster [-orch bin/orch] [-rounds 3] [-only bare,swarm,orch]
//	bench -network [-orch bin/orch] [-rounds 3] [-only proxy,idle,convergence]
//
// The second form is `make bench-cluster`, see package cluster; the third is
// `make bench-network`, see package network.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"orch/cmd/bench/cluster"
	"orch/cmd/bench/network"
	"orch/playbooks"
)

// row is one line of the table. A limit or a peer's time is what `got` is
// divided by.
type row struct {
	what      string
	got, peer time.Duration
	than      string // what peer is
	goal      string
	note      string
}

type bench struct {
	orch   string
	rounds int
	dir    string // of this run, removed at its end
	rows   []row
}

func main() {
	if playbooks.IsChild(os.Args) {
		playbooks.ChildMain()
	}
	if network.IsChild(os.Args) {
		network.ChildMain()
		return
	}
	orch := flag.String("orch", "bin/orch", "the binary to measure")
	rounds := flag.Int("rounds", 0, "rounds, of which the median counts (default 5; with -cluster 3, and one of what is slow)")
	only := flag.String("only", "", "parts to run, with commas between")
	three := flag.Bool("cluster", false, "measure a cluster of three hosts, beside Docker Swarm on the same")
	data := flag.Bool("network", false, "measure the data plane, beside HAProxy")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var err error
	if *data {
		err = network.Run(ctx, network.Config{Orch: *orch, Rounds: *rounds, Only: *only, Out: os.Stdout})
	} else if *three {
		err = cluster.Run(ctx, cluster.Config{Orch: *orch, Rounds: *rounds, Only: *only, Out: os.Stdout})
	} else {
		err = run(ctx, *orch, cmp.Or(*rounds, 5), *only)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, orch string, rounds int, only string) error {
	dir, err := os.MkdirTemp("", "orch-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{orch: orch, rounds: rounds, dir: dir}
	for _, part := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"eval", b.eval}, {"scale", b.scale}, {"rollouts", b.rollouts}, {"idle", b.idle}, {"start", b.start}, {"heal", b.heal}, {"update", b.update},
	} {
		if only != "" && !slices.Contains(strings.Split(only, ","), part.name) {
			continue
		}
		fmt.Fprintf(os.Stderr, "bench: %s …\n", part.name)
		if err := part.run(ctx); err != nil {
			fmt.Fprintf(os.Stderr, "bench: %s is left out: %v\n", part.name, err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "WHAT\tORCH\tPEER OR LIMIT\tRATIO\tGOAL\tNOTE")
	for _, r := range b.rows {
		if r.peer > 0 {
			fmt.Fprintf(w, "%s\t%s\t%s %s\t%.2f\t%s\t%s\n", r.what, short(r.got), short(r.peer), r.than, float64(r.got)/float64(r.peer), r.goal, r.note)
		} else {
			fmt.Fprintf(w, "%s\t%s\t\t\t%s\t%s\n", r.what, short(r.got), r.goal, r.note)
		}
	}
	return w.Flush()
}

func short(d time.Duration) string {
	switch {
	case d == 0:
		return ""
	case d < 10*time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	}
	return d.Round(time.Millisecond).String()
}

func median(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)/2]
}

// timed is how long do took.
func timed(do func() error) (time.Duration, error) {
	began := time.Now()
	err := do()
	return time.Since(began), err
}

// times runs do for each round and returns the median of what it took.
func (b *bench) times(do func(round int) error) (time.Duration, error) {
	var all []time.Duration
	for i := range b.rounds {
		d, err := timed(func() error { return do(i) })
		if err != nil {
			return 0, err
		}
		all = append(all, d)
	}
	return median(all), nil
}

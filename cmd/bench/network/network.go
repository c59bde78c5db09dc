// Package network measures the data plane of a node beside HAProxy, and how
// soon a whole cluster sends requests to a new task. Load is made by wrk; both
// programs come with Debian.
package network

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"text/tabwriter"
)

// Config says what to measure.
type Config struct {
	Orch    string // the binary
	Seconds int    // that wrk asks each proxy, each round; default 3
	Rounds  int    // of which the median counts; default 3
	Only    string // of "proxy", "idle", "convergence", with commas between; empty is all
	Out     io.Writer
}

// row is one line of the table.
type row struct{ what, orch, peer, ratio, goal string }

type bench struct {
	Config
	rows []row
}

// Run measures and prints a table.
func Run(ctx context.Context, c Config) error {
	for _, program := range []string{"haproxy", "wrk"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%s is missing: apt-get install haproxy wrk", program)
		}
	}
	if c.Seconds < 1 {
		c.Seconds = 3
	}
	if c.Rounds < 1 {
		c.Rounds = 3
	}
	b := &bench{Config: c}
	var all []error
	for _, part := range []struct {
		name string
		run  func(context.Context) error
	}{{"proxy", b.proxies}, {"idle", b.idle}, {"convergence", b.convergence}} {
		if c.Only != "" && !slices.Contains(strings.Split(c.Only, ","), part.name) || ctx.Err() != nil {
			continue
		}
		fmt.Fprintf(os.Stderr, "bench: %s …\n", part.name)
		if err := part.run(ctx); err != nil {
			all = append(all, fmt.Errorf("%s: %w", part.name, err))
		}
	}
	w := tabwriter.NewWriter(c.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "WHAT\tORCH\tPEER\tORCH / PEER\tGOAL")
	for _, r := range b.rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", r.what, r.orch, r.peer, r.ratio, r.goal)
	}
	return errors.Join(append(all, w.Flush())...)
}

func median(all []float64) float64 {
	slices.Sort(all)
	return all[len(all)/2]
}

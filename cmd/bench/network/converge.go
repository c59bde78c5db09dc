package network

import (
	"context"
	"fmt"
	"slices"
	"time"

	"orch/cmd/bench/cluster"
)

// replaced tasks it takes to tell a 99th percentile at least roughly.
const replaced = 40

// convergence is how soon three hosts send requests to a new task.
func (b *bench) convergence(ctx context.Context) error {
	all, err := cluster.Convergence(ctx, b.Orch, replaced)
	if err != nil {
		return err
	}
	slices.Sort(all)
	at := func(part float64) string {
		return all[int(part*float64(len(all)-1))].Round(100 * time.Microsecond).String()
	}
	b.rows = append(b.rows, row{
		fmt.Sprintf("first good check until in rotation on 3 hosts, %d tasks: p50, p90, p99", len(all)),
		at(0.5) + ", " + at(0.9) + ", " + at(0.99), "", "", "p99 100ms",
	})
	return nil
}

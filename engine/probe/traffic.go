package probe

import (
	"context"
	"errors"
	"fmt"
	"time"

	"orch/engine/api"
	"orch/engine/rollout"
)

// Of probes that don't say: how far traffic is looked back at, and how many
// requests it takes to say anything.
const (
	DefaultWindow = 30 * time.Second
	defaultLeast  = 1
)

// percentiles by what a probe calls them.
var percentiles = map[string]float64{"p50": 0.50, "p90": 0.90, "p99": 0.99}

// traffic judges what all nodes' ingress saw of a version.
func (a *Asker) traffic(ctx context.Context, ask rollout.ProbeOf) (string, error) {
	p := ask.Probe
	if !bounded(p) {
		return "", errBoundless
	}
	if a.Traffic == nil {
		return "", errors.New("nobody counts the traffic")
	}
	window := p.Window.AsDuration()
	if window <= 0 {
		window = DefaultWindow
	}
	count, err := a.Traffic(ctx, ask.Service, p.Stable, window)
	if err != nil {
		return "", err
	}
	least := max(uint64(p.Least), defaultLeast)
	if count.Requests < least && p.Query != "requests" {
		return "", fmt.Errorf("%d requests in %s, which says nothing yet: it takes %d", count.Requests, window, least)
	}
	value := float64(count.Requests)
	switch q, ok := percentiles[p.Query]; {
	case ok:
		value = percentile(count.Latency, q).Seconds()
	case p.Query == "error_rate":
		value = float64(count.Failures) / float64(count.Requests)
	case p.Query != "requests":
		return "", fmt.Errorf("traffic has no %q", p.Query)
	}
	is := fmt.Sprintf("%s %s of %d requests in %s", p.Query, number(value), count.Requests, window)
	if !good(p, value) {
		return "", fmt.Errorf("%s, want it %s", is, bounds(p))
	}
	return is + ", " + bounds(p), nil
}

func number(v float64) string { return fmt.Sprintf("%.4g", v) }

// percentile is the upper end of the bucket in which that part of all lies; see
// api.TrafficCount for the buckets.
func percentile(latency []uint64, part float64) time.Duration {
	all := uint64(0)
	for _, n := range latency {
		all += n
	}
	rank, seen := uint64(part*float64(all)), uint64(0)
	for i, n := range latency {
		if seen += n; n > 0 && seen > rank || seen == all {
			return api.LatencyBound(i)
		}
	}
	return 0
}

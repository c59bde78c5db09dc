package probe_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"orch/engine/api"
	"orch/engine/probe"
	"orch/engine/rollout"
)

func TestTraffic(t *testing.T) {
	count := &api.TrafficCount{Requests: 1000, Failures: 20, Latency: make([]uint64, api.LatencyBuckets)}
	count.Latency[api.LatencyBucket(10*time.Millisecond)] = 950
	count.Latency[api.LatencyBucket(time.Second)] = 50
	number := func(v float64) *float64 { return &v }
	for name, c := range map[string]struct {
		probe  *api.Probe
		count  *api.TrafficCount
		err    error
		ok     bool
		reason string
	}{
		"few errors":   {probe: &api.Probe{Query: "error_rate", Below: number(0.05)}, count: count, ok: true, reason: "error_rate 0.02 of 1000 requests in 30s, below 0.05"},
		"many errors":  {probe: &api.Probe{Query: "error_rate", Below: number(0.01)}, count: count, reason: "error_rate 0.02 of 1000 requests in 30s, want it below 0.01"},
		"swift":        {probe: &api.Probe{Query: "p50", Below: number(0.02)}, count: count, ok: true, reason: "p50 0.0"},
		"slow":         {probe: &api.Probe{Query: "p99", Below: number(0.5)}, count: count, reason: "p99 1."},
		"p90":          {probe: &api.Probe{Query: "p90", Below: number(0.02)}, count: count, ok: true, reason: "p90 0.01"},
		"requests":     {probe: &api.Probe{Query: "requests", Above: number(10), Window: durationpb.New(time.Minute)}, count: count, ok: true, reason: "requests 1000 of 1000 requests in 1m0s, above 10"},
		"none":         {probe: &api.Probe{Query: "requests", Above: number(10)}, count: &api.TrafficCount{}, reason: "requests 0 of 0"},
		"too few":      {probe: &api.Probe{Query: "error_rate", Below: number(1), Least: 1001}, count: count, reason: "1000 requests in 30s, which says nothing yet: it takes 1001"},
		"no traffic":   {probe: &api.Probe{Query: "p50", Below: number(1)}, count: &api.TrafficCount{}, reason: "0 requests in 30s, which says nothing yet"},
		"a node away":  {probe: &api.Probe{Query: "p50", Below: number(1)}, err: errors.New("node n1 is not connected"), reason: "node n1 is not connected"},
		"no bounds":    {probe: &api.Probe{Query: "p50"}, count: count, reason: "neither below nor above"},
		"another kind": {probe: &api.Probe{Query: "p42", Below: number(1)}, count: count, reason: `traffic has no "p42"`},
	} {
		c.probe.Type = "traffic"
		a := &probe.Asker{Traffic: func(_ context.Context, service string, _ bool, _ time.Duration) (*api.TrafficCount, error) {
			if service != "s/web" {
				t.Errorf("asked of %q", service)
			}
			return c.count, c.err
		}}
		got := a.Ask(t.Context(), rollout.ProbeOf{Probe: c.probe, Service: "s/web"})
		if got.Ok != c.ok || !strings.Contains(got.Reason, c.reason) {
			t.Errorf("%s: %t, %q", name, got.Ok, got.Reason)
		}
	}
	if s := (&probe.Asker{}).Ask(t.Context(), rollout.ProbeOf{Probe: &api.Probe{Type: "traffic", Query: "p50", Below: number(1)}}); s.Ok || s.Reason != "nobody counts the traffic" {
		t.Errorf("without counters: %v", s)
	}
}

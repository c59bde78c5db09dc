package ingress

import (
	"fmt"
	"testing"
	"time"

	"orch/engine/api"
)

func TestCounters(t *testing.T) {
	var c counters
	now := time.Unix(1_800_000_000, 0)
	for s := range 400 { // one a second; each tenth fails
		c.count("s/web", "v1", now.Add(time.Duration(s)*time.Second), 10*time.Millisecond, s%10 == 0)
	}
	c.count("s/web", "v2", now, time.Second, false)
	end := now.Add(399 * time.Second)
	for window, want := range map[time.Duration]uint64{5 * time.Second: 5, 30 * time.Second: 30, 5 * time.Minute: 300} {
		got := c.sum("s/web", "v1", end, window)
		if got.Requests != want || got.Failures != want/10 && window > 5*time.Second || got.Latency[api.LatencyBucket(10*time.Millisecond)] != want {
			t.Errorf("in %v: %d requests, %d failures", window, got.Requests, got.Failures)
		}
	}
	if got := c.sum("s/web", "v2", end, 5*time.Minute); got.Requests != 0 {
		t.Errorf("what is long over counts: %v", got)
	}
	if got := c.sum("s/none", "v1", end, time.Minute); got.Requests != 0 || len(got.Latency) != api.LatencyBuckets {
		t.Errorf("an unknown one: %v", got)
	}
	for i := range 2 * mostCounted {
		c.count("s/web", fmt.Sprint("x", i), end.Add(time.Second), 0, false)
	}
	if len(c.all) > mostCounted {
		t.Errorf("%d versions are remembered", len(c.all))
	}
	if got := c.sum("s/web", fmt.Sprint("x", 2*mostCounted-1), end.Add(time.Second), time.Minute); got.Requests != 1 {
		t.Errorf("the newest was forgotten: %v", got)
	}
}

func BenchmarkCount(b *testing.B) {
	var c counters
	now := time.Now()
	for b.Loop() {
		c.count("s/web", "v1", now, time.Millisecond, false)
	}
}

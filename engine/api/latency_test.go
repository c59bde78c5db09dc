package api

import (
	"testing"
	"time"
)

// Every latency is counted in a bucket that it fits into, and in no smaller one.
func TestLatencyBuckets(t *testing.T) {
	for d := time.Microsecond; d < 80*time.Second; d += d/7 + 1 {
		b := LatencyBucket(d)
		if d > LatencyBound(b) || b > 0 && d < LatencyBound(b-1) {
			t.Fatalf("%v is in bucket %d, up to %v", d, b, LatencyBound(b))
		}
	}
	if b := LatencyBucket(time.Hour); b != LatencyBuckets-1 {
		t.Errorf("an hour is in %d", b)
	}
}

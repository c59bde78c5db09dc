package api

import (
	"math"
	"time"
)

// Buckets of TrafficCount.latency.
const (
	LatencyBuckets = 80
	leastLatency   = 100 * time.Microsecond
)

// LatencyBucket is the one that a latency is counted in, from 0 to
// LatencyBuckets-1.
func LatencyBucket(d time.Duration) int {
	if d < leastLatency {
		return 0
	}
	return min(LatencyBuckets-1, 1+int(math.Floor(4*math.Log2(float64(d)/float64(leastLatency)))))
}

// LatencyBound is the upper end of a bucket: 100 us * 2^(bucket/4).
func LatencyBound(bucket int) time.Duration {
	return time.Duration(float64(leastLatency) * math.Pow(2, float64(bucket)/4))
}

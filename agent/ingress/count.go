package ingress

import (
	"math"
	"sync"
	"time"

	"orch/engine/api"
)

// Requests, and connections of tcp, are counted by service and version: so a
// new version can be judged by what its clients see, without any other tool.

const (
	// slice is how finely time is told apart, and spans how far back.
	slice = 5 * time.Second
	spans = 61
)

// counters counts by service and version. The zero value is ready; it is safe
// for concurrent use.
type counters struct {
	mu  sync.Mutex
	all map[countKey]*history
}

type countKey struct{ service, version string }

// history is what happened in the last spans of time, in a ring.
type history [spans]span

// span is what happened in one slice of time.
type span struct {
	at                 int64 // number of the slice since 1970
	requests, failures uint32
	latency            [api.LatencyBuckets]uint32
}

// mostCounted versions are remembered; then the stalest goes.
const mostCounted = 256

func (c *counters) count(service, version string, now time.Time, took time.Duration, failed bool) {
	if service == "" {
		return
	}
	at := now.Unix() / int64(slice/time.Second)
	c.mu.Lock()
	defer c.mu.Unlock()
	key := countKey{service, version}
	h := c.all[key]
	if h == nil {
		h = new(history)
		if c.all == nil {
			c.all = map[countKey]*history{}
		}
		if len(c.all) >= mostCounted {
			c.forget()
		}
		c.all[key] = h
	}
	s := &h[at%spans]
	if s.at != at {
		*s = span{at: at}
	}
	s.requests++
	if failed {
		s.failures++
	}
	s.latency[api.LatencyBucket(took)]++
}

// forget drops the version that was asked longest ago; c.mu is held.
func (c *counters) forget() {
	var stalest countKey
	oldest := int64(math.MaxInt64)
	for key, h := range c.all {
		newest := int64(0)
		for i := range h {
			newest = max(newest, h[i].at)
		}
		if newest < oldest {
			oldest, stalest = newest, key
		}
	}
	delete(c.all, stalest)
}

// sum is what happened to a version in the window before now.
func (c *counters) sum(service, version string, now time.Time, window time.Duration) *api.TrafficCount {
	from := now.Add(-window).Unix() / int64(slice/time.Second)
	all := &api.TrafficCount{Latency: make([]uint64, api.LatencyBuckets)}
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.all[countKey{service, version}]
	if h == nil {
		return all
	}
	for i := range h {
		s := &h[i]
		if s.at <= from {
			continue
		}
		all.Requests += uint64(s.requests)
		all.Failures += uint64(s.failures)
		for j, n := range s.latency {
			all.Latency[j] += uint64(n)
		}
	}
	return all
}

// Traffic is what went to one version of a service through this ingress in
// the window before now, of five minutes at most.
func (p *Publisher) Traffic(service, version string, window time.Duration) *api.TrafficCount {
	return p.counters.sum(service, version, time.Now(), window)
}

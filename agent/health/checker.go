package health

import (
	"context"
	"errors"
	"syscall"
	"time"

	"orch/engine/api"
)

var errRefused, errNoRoute, errReset = syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ECONNRESET

// Result is what the newest probe says.
type Result struct {
	Healthy  bool
	Failures int    // in a row, that count
	Error    string // of the newest failed probe; empty after a success
}

// firstPause is how long a starting task is left alone between probes at
// first; it doubles up to the interval.
const firstPause = 100 * time.Millisecond

// Run probes until ctx ends, and returns its error; it reports the first
// result and each change. Meaning of the check's fields, as in Docker: a
// probe that takes longer than timeout has failed; retries failures in a
// row make a task unhealthy; failures in the start_period don't count, until
// a first success ends it. Until the first success probes come quickly, so a
// task is ready as soon as it can be, not an interval later; quick failures
// count no more often than once an interval. A healthy task stays healthy
// until retries failures. probe and report are called from Run's goroutine.
func Run(ctx context.Context, c *api.HealthCheck, probe func(context.Context) error, report func(Result)) error {
	interval := orElse(c.GetInterval().AsDuration(), DefaultInterval)
	timeout := orElse(c.GetTimeout().AsDuration(), DefaultTimeout)
	retries := int(c.GetRetries())
	if retries <= 0 {
		retries = DefaultRetries
	}
	begun := time.Now()
	// Failures before this time don't count.
	countFrom := begun.Add(c.GetStartPeriod().AsDuration())
	var last Result
	reported, succeeded := false, false
	pause := min(firstPause, interval)
	for {
		bounded, cancel := context.WithTimeout(ctx, timeout)
		err := probe(bounded)
		if err == nil {
			err = bounded.Err() // an answer after the timeout is none
		}
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		next := last
		switch now := time.Now(); {
		case err == nil:
			next = Result{Healthy: true}
			succeeded = true
		default:
			next.Error = cause(err).Error()
			if errors.Is(err, context.DeadlineExceeded) {
				next.Error = "no answer within " + timeout.String()
			}
			if succeeded || !now.Before(countFrom) {
				next.Failures++
				countFrom = now.Add(interval)
			}
			if next.Failures >= retries {
				next.Healthy = false
			}
		}
		if !reported || next != last {
			report(next)
			reported = true
		}
		last = next
		wait := interval
		if !succeeded {
			wait, pause = pause, min(2*pause, interval)
		}
		again := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			again.Stop()
			return ctx.Err()
		case <-again.C:
		}
	}
}

// Unhealthy is whether r has failed often enough for c to be given up.
func Unhealthy(c *api.HealthCheck, r Result) bool {
	return !r.Healthy && r.Failures >= max(1, int(orElse(time.Duration(c.GetRetries()), DefaultRetries)))
}

func orElse(d, otherwise time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return otherwise
}

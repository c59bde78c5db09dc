package engine

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/durationpb"

	"orch/engine/api"
)

// traffic sums up what the ingress of every node that is up saw of a service's
// new version, or of the one before. A node that doesn't say is an error: what
// it saw may be all there was.
func (e *Engine) traffic(ctx context.Context, service string, before bool, window time.Duration) (*api.TrafficCount, error) {
	v := e.store.View()
	svc := v.Service(service)
	if svc == nil {
		return nil, fmt.Errorf("there is no service %q any more", service)
	}
	version := svc.Version
	if r := v.Rollout(svc.RolloutId); r != nil {
		if version = r.ToVersion; before {
			version = r.FromVersion
		}
	}
	var all errgroup.Group
	answers := make([]*api.TrafficCount, len(v.Nodes()))
	for i, n := range v.Nodes() {
		if n.Status != "up" {
			continue
		}
		all.Go(func() error {
			a, err := e.dispatcher.Ask(ctx, n.Id, &api.Ask{What: &api.Ask_Traffic{Traffic: &api.TrafficQuery{
				Service: service, Version: version, Window: durationpb.New(window),
			}}})
			answers[i] = a.GetTraffic()
			return err
		})
	}
	if err := all.Wait(); err != nil {
		return nil, err
	}
	sum := &api.TrafficCount{Latency: make([]uint64, api.LatencyBuckets)}
	for _, a := range answers {
		sum.Requests += a.GetRequests()
		sum.Failures += a.GetFailures()
		for i, n := range a.GetLatency() {
			if i < len(sum.Latency) {
				sum.Latency[i] += n
			}
		}
	}
	return sum, nil
}

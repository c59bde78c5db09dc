// Package probe asks the world outside whether a rollout may go on: a URL, a
// Prometheus, an InfluxDB, a command in a task, or the cluster's own ingress. It asks once; when, how
// often and what follows is its caller's business. It keeps nothing between
// two questions, starts no goroutine that outlives one, and may be used from
// many goroutines.
//
// What it says becomes part of the replicated log and is read by operators:
// a reason is one short line, and of a URL it holds neither user and password
// nor the query, where tokens are.
package probe

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"orch/engine/api"
	"orch/engine/rollout"
)

// Timeouts of probes that have none.
const (
	DefaultTimeout     = 5 * time.Second
	DefaultExecTimeout = 10 * time.Second
)

// Asker asks. Its zero value can ask all but commands.
type Asker struct {
	// Client asks by HTTP. Its CheckRedirect is not used: no redirect is
	// followed. nil: one that uses no proxy and keeps no connections.
	Client *http.Client
	// Exec runs a command in a task, given by its id, and has until ctx's
	// deadline, which is always set, to say what came of it: so the command
	// itself should get a little less. An error means that it was not run to
	// its end. nil: probes by a command are bad.
	Exec func(ctx context.Context, task string, command []string) (exitCode int32, output string, err error)
	// Traffic is what all nodes' ingress saw, in the window before now, of the
	// version that a service is brought to, or of the one before. nil: probes of
	// traffic are bad.
	Traffic func(ctx context.Context, service string, before bool, window time.Duration) (*api.TrafficCount, error)
}

// Ask puts ask.Probe's question once, and takes no longer than its timeout.
// The sample is never nil and has a reason, good or bad. All that keeps an
// answer away is bad, also the end of ctx: who ended it should not listen.
func (a *Asker) Ask(ctx context.Context, ask rollout.ProbeOf) *api.Sample {
	timeout := timeoutOf(ask.Probe)
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no answer within %s", timeout))
	defer cancel()
	reason, bad := a.ask(ctx, ask)
	if bad != nil {
		reason = bad.Error()
	}
	return &api.Sample{At: timestamppb.Now(), Ok: bad == nil, Reason: oneLine(reason, maxReason)}
}

// ask returns why the answer is good, or an error that says why it is bad or
// none.
func (a *Asker) ask(ctx context.Context, ask rollout.ProbeOf) (good string, bad error) {
	switch p := ask.Probe; p.GetType() {
	case "http":
		return a.status(ctx, p)
	case "metric":
		return a.metric(ctx, p)
	case "influx":
		return a.influx(ctx, p)
	case "exec":
		return a.exec(ctx, p, ask.Tasks)
	case "traffic":
		return a.traffic(ctx, ask)
	default:
		return "", fmt.Errorf("there is no probe of type %q", p.GetType())
	}
}

func timeoutOf(p *api.Probe) time.Duration {
	if d := p.GetTimeout().AsDuration(); d > 0 {
		return d
	}
	if p.GetType() == "exec" {
		return DefaultExecTimeout
	}
	return DefaultTimeout
}

// over says why ctx ended.
func over(ctx context.Context) error {
	switch why := context.Cause(ctx); {
	case errors.Is(why, context.Canceled):
		return errors.New("nobody waits for the answer any more")
	case errors.Is(why, context.DeadlineExceeded): // the caller's
		return errors.New("no answer in time")
	default:
		return why
	}
}

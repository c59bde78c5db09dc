package probe_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"orch/engine/api"
	"orch/engine/probe"
	"orch/engine/rollout"
)

func TestNoSuchProbe(t *testing.T) {
	ask(t, &probe.Asker{}, "", &api.Probe{Type: "ping"}, false, `there is no probe of type "ping"`)
	ask(t, &probe.Asker{}, "", nil, false, `there is no probe of type ""`)
}

// hang never answers.
func hang(ctx context.Context, _ string, _ []string) (int32, string, error) {
	<-ctx.Done()
	return -1, "so far", ctx.Err()
}

func TestTimeouts(t *testing.T) {
	for _, c := range []struct {
		timeout, after time.Duration
		reason         string
	}{
		{0, 10 * time.Second, "check in task a: no answer within 10s: so far"},
		{time.Minute, time.Minute, "check in task a: no answer within 1m0s: so far"},
		{time.Hour, 2 * time.Minute, "check in task a: no answer in time: so far"}, // the caller's
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			p := &api.Probe{Type: "exec", Command: []string{"check"}, Timeout: durationpb.New(c.timeout)}
			began := time.Now()
			s := (&probe.Asker{Exec: hang}).Ask(ctx, rollout.ProbeOf{Probe: p, Tasks: []string{"a", "b"}})
			check(t, s, "", false, c.reason)
			if d := time.Since(began); d != c.after {
				t.Errorf("it took %s", d)
			}
		})
	}
}

func TestGivenUp(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, p := range []*api.Probe{{Type: "http", Url: "http://127.0.0.1:1/x"}, {Type: "exec", Command: []string{"GET", "http://127.0.0.1:1/x"}}} {
		s := (&probe.Asker{Exec: hang}).Ask(ctx, rollout.ProbeOf{Probe: p, Tasks: []string{"a"}})
		want := "GET http://127.0.0.1:1/x: nobody waits for the answer any more"
		if p.Type == "exec" {
			want = "GET http://127.0.0.1:1/x in task a: nobody waits for the answer any more: so far"
		}
		check(t, s, "", false, want)
	}
}

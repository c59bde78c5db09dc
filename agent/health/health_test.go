package health

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"orch/engine/api"
)

func TestRun(t *testing.T) {
	check := &api.HealthCheck{Interval: durationpb.New(10 * time.Second), Timeout: durationpb.New(time.Second), Retries: 2, StartPeriod: durationpb.New(5 * time.Second)}
	type seen struct {
		after time.Duration
		Result
	}
	run := func(t *testing.T, wellFrom, illFrom, end time.Duration) (got []seen) {
		synctest.Test(t, func(t *testing.T) {
			begun := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), end)
			defer cancel()
			_ = Run(ctx, check, func(context.Context) error {
				if d := time.Since(begun); d >= wellFrom && d < illFrom {
					return nil
				}
				return errors.New("ill")
			}, func(r Result) { got = append(got, seen{time.Since(begun), r}) })
		})
		return got
	}
	t.Run("ready soon", func(t *testing.T) {
		got := run(t, 250*time.Millisecond, time.Hour, time.Minute)
		if n := len(got); n != 2 || !got[1].Healthy || got[1].after != 300*time.Millisecond {
			t.Fatalf("got %v", got)
		}
	})
	t.Run("failures while starting don't count", func(t *testing.T) {
		got := run(t, time.Hour, time.Hour, 5*time.Second)
		if len(got) != 1 || got[0].Failures != 0 || got[0].Healthy || got[0].Error != "ill" {
			t.Fatalf("got %v", got)
		}
	})
	t.Run("never well", func(t *testing.T) {
		got := run(t, time.Hour, time.Hour, time.Minute)
		last := got[len(got)-1]
		if !Unhealthy(check, last.Result) || got[2].Failures != 2 || got[2].after < 15*time.Second {
			t.Fatalf("got %v", got)
		}
	})
	t.Run("well until retries failures", func(t *testing.T) {
		got := run(t, 0, 15*time.Second, 31*time.Second)
		if len(got) != 3 || !got[1].Healthy || got[1].Failures != 1 || got[2].Healthy || got[2].after != 30*time.Second {
			t.Fatalf("got %v", got)
		}
	})
	t.Run("timeout", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			var got Result
			_ = Run(ctx, check, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, func(r Result) { got = r })
			if got.Error != "no answer within 1s" {
				t.Fatalf("got %+v", got)
			}
		})
	})
}

func TestProbe(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/ping" {
			http.Error(w, "not here", http.StatusNotFound)
		}
	}))
	u, _ := url.Parse(s.URL)
	port, _ := strconv.Atoi(u.Port())
	target := Target{Address: u.Hostname(), Exec: func(context.Context, []string) (int, string, error) { return 3, "no\nmore", nil }}
	probe := func(c *api.HealthCheck) string {
		c.Port = uint32(port)
		if err := Probe(t.Context(), c, target); err != nil {
			return err.Error()
		}
		return ""
	}
	if got := probe(&api.HealthCheck{Type: "http", HttpPath: "/ping"}); got != "" {
		t.Error(got)
	}
	if got := probe(&api.HealthCheck{Type: "tcp"}); got != "" {
		t.Error(got)
	}
	if got := probe(&api.HealthCheck{Type: "http", HttpPath: "/x"}); !strings.HasSuffix(got, "/x: 404 Not Found: not here") {
		t.Error(got)
	}
	if got := probe(&api.HealthCheck{Type: "http", HttpPath: "/x", HttpStatus: 404}); got != "" {
		t.Error(got)
	}
	if got := probe(&api.HealthCheck{Type: "cmd", Command: []string{"is", "well"}}); got != "is well: exit 3: no" {
		t.Error(got)
	}
	s.Close()
	if got, want := probe(&api.HealthCheck{Type: "http", HttpPath: "/ping"}), "GET "+s.URL+"/ping: connection refused"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

package probe_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"orch/engine/api"
	"orch/engine/probe"
	"orch/engine/rollout"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server answers all requests with one function, and checks how it was asked.
func server(t *testing.T, answer http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			t.Errorf("asked by %s", r.Method)
		}
		answer(w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func text(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}
}

// ask expects a sample; URL in the reason stands for the server's.
func ask(t *testing.T, a *probe.Asker, server string, p *api.Probe, ok bool, reason string) {
	t.Helper()
	check(t, a.Ask(t.Context(), rollout.ProbeOf{Probe: p}), server, ok, reason)
}

func check(t *testing.T, s *api.Sample, server string, ok bool, reason string) {
	t.Helper()
	said := s.Reason
	if server != "" {
		said = strings.ReplaceAll(said, server, "URL")
	}
	if s.Ok != ok || said != reason {
		t.Errorf("ok %v: %q\nwant %v: %q", s.Ok, said, ok, reason)
	}
	if d := time.Since(s.At.AsTime()); s.At == nil || d < 0 || d > time.Minute {
		t.Errorf("at %v", s.At)
	}
	if !utf8.ValidString(s.Reason) || len(s.Reason) > 500 {
		t.Errorf("a reason for no log: %q", s.Reason)
	}
}

func below(v float64) *api.Probe { return &api.Probe{Below: proto.Float64(v)} }

func above(v float64) *api.Probe { return &api.Probe{Above: proto.Float64(v)} }

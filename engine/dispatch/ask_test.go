package dispatch_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"orch/engine/api"
)

// A question goes to its node, and only that node's answer counts.
func TestAsk(t *testing.T) {
	r := newRig(t)
	a, b := r.hello("n1"), r.hello("n2")
	ask := func(ctx context.Context, node string) <-chan string {
		said := make(chan string, 1)
		go func() {
			got, err := r.d.Ask(ctx, node, &api.Ask{What: &api.Ask_Traffic{Traffic: &api.TrafficQuery{Service: "s/web"}}})
			if err != nil {
				said <- err.Error()
				return
			}
			said <- got.Findings[0].Text
		}()
		return said
	}
	asked := func(x *agent) *api.Ask {
		for {
			if q := x.next().GetAsk(); q != nil {
				return q
			}
		}
	}
	answer := func(x *agent, m *api.Answer) {
		x.send(&api.AgentMessage{Kind: &api.AgentMessage_Answer{Answer: m}})
	}
	said := ask(t.Context(), "n1")
	q := asked(a)
	if q.GetTraffic().GetService() != "s/web" {
		t.Errorf("asked %v", q)
	}
	answer(b, &api.Answer{Id: q.Id, Findings: []*api.Finding{{Text: "forged"}}})
	answer(a, &api.Answer{Id: "nobody asked"})
	answer(a, &api.Answer{Id: q.Id, Findings: []*api.Finding{{Text: "fine"}}})
	if got := <-said; got != "fine" {
		t.Errorf("got %q", got)
	}
	said = ask(t.Context(), "n1")
	answer(a, &api.Answer{Id: asked(a).Id, Error: "it can't"})
	if got := <-said; !strings.HasSuffix(got, "it can't") {
		t.Errorf("got %q", got)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if got := <-ask(ctx, "n1"); !strings.Contains(got, "did not answer") {
		t.Errorf("got %q", got)
	}
	said = ask(t.Context(), "n2")
	asked(b)
	b.leave()
	if got := <-said; !strings.Contains(got, "is not connected any more") {
		t.Errorf("got %q", got)
	}
	if got := <-ask(t.Context(), "n9"); !strings.Contains(got, "is not connected") {
		t.Errorf("got %q", got)
	}
}

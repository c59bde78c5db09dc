package network

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"orch/engine/api"
)

// fakeCarrier remembers its routes; what is in flight is given.
type fakeCarrier struct {
	routes   []*api.Route
	inFlight map[string]uint32
	gate     chan struct{} // holds Publish; nil: nothing does
	fails    int           // so often Resolve does
}

func (f *fakeCarrier) Publish(p *api.Published) error {
	if f.gate != nil {
		<-f.gate
	}
	f.routes = p.Routes
	return nil
}

func (f *fakeCarrier) Resolve(*api.Names) error {
	if f.fails > 0 {
		f.fails--
		return errors.New("not now")
	}
	return nil
}

func (f *fakeCarrier) InFlight(tasks map[string]bool) map[string]uint32 {
	all := map[string]uint32{}
	for t, n := range f.inFlight {
		if tasks[t] {
			all[t] = n
		}
	}
	return all
}

// An epoch is acknowledged when it is in effect, not when it is known.
func TestFollowedSaysWhatIsInEffect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pub := &fakeCarrier{gate: make(chan struct{}), inFlight: map[string]uint32{"1": 3, "2": 1}}
		p := &Plane{Node: "n", Carrier: pub}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { p.Run(ctx); close(ended) }()
		p.Follow(&api.Endpoints{Full: true, Epoch: 7, Services: []*api.EndpointService{{Id: "s/web", Ports: []*api.PortSpec{{Target: 80, Publish: 8080}}}},
			Endpoints: []*api.Endpoint{web("1", "n", true), web("2", "n", false)}})
		synctest.Wait()
		if got := p.Followed(); got.Epoch != 0 {
			t.Errorf("acknowledged at once: %v", got)
		}
		pub.gate <- struct{}{}
		<-p.Changed()
		if got := p.Followed(); got.Epoch != 7 || len(got.InFlight) != 1 || got.InFlight["1"] != 3 {
			t.Errorf("got %v", got)
		}
		if got := text(pub.routes); got != ":8080 2=10.0.0.2:80\n" {
			t.Errorf("routes %q", got)
		}
		pub.inFlight["1"] = 0
		p.Ended()
		<-p.Changed()
		cancel()
		<-ended
	})
}

// What isn't in effect isn't acknowledged, and is tried again.
func TestACarrierThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &Plane{Node: "n", Carrier: &fakeCarrier{fails: 2}}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { p.Run(ctx); close(ended) }()
		began := time.Now()
		p.Follow(&api.Endpoints{Full: true, Epoch: 7})
		if synctest.Wait(); p.Followed().Epoch != 0 {
			t.Errorf("acknowledged at once: %v", p.Followed())
		}
		<-p.Changed()
		if got := p.Followed().Epoch; got != 7 || time.Since(began) != 2*retry {
			t.Errorf("epoch %d after %s", got, time.Since(began))
		}
		cancel()
		<-ended
	})
}

// Before there is a table, what an agent before this one has told stays.
func TestNoTableYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &fakeCarrier{routes: []*api.Route{{Port: 80}}}
		p := &Plane{Node: "n", Carrier: c}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { p.Run(ctx); close(ended) }()
		p.Local(map[string]Local{"1": {Ready: true}})
		if synctest.Wait(); len(c.routes) != 1 {
			t.Errorf("got %v", c.routes)
		}
		cancel()
		<-ended
	})
}

// fakeVirtual fails as often as is said.
type fakeVirtual struct{ calls, fails int }

func (f *fakeVirtual) Virtual([]*api.Namespace) (map[string]bool, bool) {
	f.calls++
	return nil, f.calls <= f.fails
}

// What failed in a namespace is tried again though nothing changes.
func TestNamespacesAreTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &fakeVirtual{fails: 2}
		p := &Plane{Node: "n", Carrier: &fakeCarrier{}, Virtual: v}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { p.Run(ctx); close(ended) }()
		p.Follow(&api.Endpoints{Full: true, Epoch: 1})
		<-time.After(time.Minute)
		if synctest.Wait(); v.calls != 3 {
			t.Errorf("%d calls, want 3", v.calls)
		}
		cancel()
		<-ended
	})
}

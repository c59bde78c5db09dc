package names

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"orch/engine/api"
)

func zones() []*api.Zone {
	return []*api.Zone{
		{Network: "s/a", Gateway: "127.0.53.1", Subnet: "127.0.53.0/24", Services: []*api.NamedService{
			{Name: "web", Stack: "s", Virtual: "10.1.0.2", Ports: []*api.PortSpec{{Target: 80, Name: "http", Protocol: "tcp"}, {Target: 81, Protocol: "udp"}},
				Tasks: []*api.NamedTask{{Slot: "1", Address: "10.1.0.11", Ready: true}, {Slot: "2", Address: "10.1.0.12"}, {Slot: "1", Address: "10.1.0.13"}}},
			{Name: "my-web", Stack: "s", Virtual: "10.1.0.3"}}},
		{Network: "s/b", Gateway: "127.0.53.2", Subnet: "127.0.54.0/24", Internal: true, Services: []*api.NamedService{{Name: "db", Stack: "s", Virtual: "10.2.0.2"}}},
	}
}

func TestLookup(t *testing.T) {
	for name, want := range map[string]string{
		"web": "10.1.0.2", "web.s": "10.1.0.2", "my-web": "10.1.0.3", "tasks.web": "10.1.0.11", "tasks.web.s": "10.1.0.11",
		"1.web": "10.1.0.11", "2.web.s": "10.1.0.12", "db": "10.2.0.2", "3.web": "none", "web.other": "none", "eb": "none", "www.web": "none",
		"example.org": "none", "": "none", "tasks.my-web": "",
	} {
		got := "none"
		if f := lookup(zones(), name); f != nil {
			got = strings.Join(f.addresses, " ")
		}
		if got != want {
			t.Errorf("%q is %q, want %q", name, got, want)
		}
	}
}

func TestReply(t *testing.T) {
	for ask, want := range map[string]string{
		"web. A":               "web. A 10.1.0.2",
		"web. AAAA":            "",
		"web. MX":              "",
		"tasks.web. A":         "tasks.web. A 10.1.0.11",
		"web. SRV":             "web. SRV 1 1 80 1.web.s.; web. SRV 1 1 81 1.web.s.",
		"_http._tcp.web. SRV":  "_http._tcp.web. SRV 1 1 80 1.web.s.",
		"_udp._udp.web.s. SRV": "_udp._udp.web.s. SRV 1 1 81 1.web.s.",
		"2.web. SRV":           "",
	} {
		name, kind, _ := strings.Cut(ask, " ")
		q := new(dns.Msg).SetQuestion(name, dns.StringToType[kind])
		a := lookup(zones(), strings.TrimSuffix(name, ".")).reply(q)
		var got []string
		for _, rr := range a.Answer {
			got = append(got, rr.Header().Name+" "+dns.TypeToString[rr.Header().Rrtype]+" "+strings.TrimPrefix(rr.String(), rr.Header().String()))
		}
		if strings.Join(got, "; ") != want || a.Rcode != dns.RcodeSuccess {
			t.Errorf("%s: %q, want %q", ask, got, want)
		}
	}
}

// upstreamFor is a resolver that answers all with an address that counts; it
// gives a resolv.conf that names it, and how often it was asked.
func upstreamFor(t *testing.T) (file string, asked *atomic.Int32) {
	c, err := net.ListenPacket("udp", "127.0.53.9:53")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("port 53 takes root: ", err)
		}
		t.Skip("port 53 takes root: ", err)
	}
	asked = new(atomic.Int32)
	server := &dns.Server{PacketConn: c, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		a := new(dns.Msg).SetReply(q)
		rr, _ := dns.NewRR(fmt.Sprintf("%s 60 A 192.0.2.%d", q.Question[0].Name, asked.Add(1)))
		a.Answer = append(a.Answer, rr)
		w.WriteMsg(a)
	})}
	ended := make(chan struct{})
	go func() { server.ActivateAndServe(); close(ended) }()
	t.Cleanup(func() { c.Close(); <-ended })
	file = filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(file, []byte("nameserver 127.0.53.9\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file, asked
}

func serve(t *testing.T, file string) *Server {
	s := &Server{Logger: slog.New(slog.DiscardHandler), Resolvers: file}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { s.Run(ctx); close(ended) }()
	t.Cleanup(func() { cancel(); <-ended })
	return s
}

// ask asks until there is an answer: the server may just begin to listen.
func ask(t *testing.T, network, server, name string) string {
	t.Helper()
	c := dns.Client{Net: network, Timeout: 5 * time.Second}
	for {
		a, _, err := c.Exchange(new(dns.Msg).SetQuestion(name, dns.TypeA), net.JoinHostPort(server, "53"))
		if err != nil {
			if t.Context().Err() != nil {
				t.Fatal(err)
			}
			continue
		}
		var all []string
		for _, rr := range a.Answer {
			all = append(all, rr.(*dns.A).A.String())
		}
		slices.Sort(all)
		return dns.RcodeToString[a.Rcode] + " " + strings.Join(all, " ")
	}
}

// Whoever asks is told of the networks that it is on, and of others outside
// unless it is only on internal ones.
func TestServer(t *testing.T) {
	file, asked := upstreamFor(t)
	s := serve(t, file)
	s.Names(&api.Names{Zones: zones(), Clients: []*api.NameClient{{Address: "127.0.0.1", Networks: []string{"s/a"}}}})
	for _, network := range []string{"udp", "tcp"} {
		for _, c := range []struct{ server, name, want string }{
			{"127.0.53.1", "web.", "NOERROR 10.1.0.2"},
			{"127.0.53.1", "WEB.S.", "NOERROR 10.1.0.2"},
			{"127.0.53.1", "db.", "NOERROR 192.0.2."},
			{"127.0.53.2", "db.", "NOERROR 192.0.2."}, // it isn't on that one
			{"127.0.53.2", "web.", "NOERROR 10.1.0.2"},
		} {
			if got := ask(t, network, c.server, c.name); !strings.HasPrefix(got, c.want) {
				t.Errorf("%s to %s: %s is %s, want %s", network, c.server, c.name, got, c.want)
			}
		}
	}
	n := asked.Load()
	if first, again := ask(t, "udp", "127.0.53.1", "example.org."), ask(t, "udp", "127.0.53.1", "Example.ORG."); first != again || asked.Load() != n+1 {
		t.Errorf("%s, then %s: it isn't kept", first, again)
	}
	s.Names(&api.Names{Zones: zones()})
	if got := ask(t, "udp", "127.0.53.1", "web."); got != "REFUSED " {
		t.Errorf("to somebody from elsewhere: %s", got)
	}
	s.Names(&api.Names{Zones: zones()[1:], Clients: []*api.NameClient{{Address: "127.0.0.1", Networks: []string{"s/b"}}}})
	if got := ask(t, "udp", "127.0.53.2", "example.org."); got != "NXDOMAIN " {
		t.Errorf("on an internal network: %s", got)
	}
}

// A new task isn't told a virtual address before that leads anywhere for it.
func TestHeld(t *testing.T) {
	file, _ := upstreamFor(t)
	s := serve(t, file)
	client := &api.NameClient{Address: "127.0.0.1", Networks: []string{"s/a"}, Held: true}
	s.Names(&api.Names{Zones: zones(), Clients: []*api.NameClient{client}})
	if got := ask(t, "udp", "127.0.53.1", "tasks.web."); got != "NOERROR 10.1.0.11" {
		t.Errorf("what is no virtual address isn't held: %s", got)
	}
	answer := make(chan string)
	go func() { answer <- ask(t, "udp", "127.0.53.1", "web.") }()
	settled := zones()
	settled[0].Services[0].Virtual = "10.1.0.9"
	select {
	case got := <-answer:
		t.Errorf("it was answered at once: %s", got)
		return
	case <-time.After(100 * time.Millisecond):
	}
	s.Names(&api.Names{Zones: settled, Clients: []*api.NameClient{{Address: "127.0.0.1", Networks: []string{"s/a"}}}})
	if got := <-answer; got != "NOERROR 10.1.0.9" {
		t.Errorf("got %s", got)
	}
}

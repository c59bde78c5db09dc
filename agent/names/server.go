// Package names is a node's DNS server: on each network's own address of this
// host it answers the tasks there. A service's name is its virtual address,
// "tasks.NAME" are its tasks in rotation, "SLOT.NAME" is one task; each also with
// ".STACK" behind. What it doesn't know goes to the host's own resolvers.
package names

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"orch/agent/sockets"
	"orch/engine/api"
)

const (
	port = "53"
	// ttl of answers, in seconds: tasks come and go.
	ttl = 1
	// holdFor is how long at most a new task waits for what it asks for to work.
	holdFor = 2 * time.Second
	// again is the pause before a listener is tried again.
	again = 2 * time.Second
)

// Server answers the tasks here. Names may be called at any time; all is safe
// for concurrent use.
type Server struct {
	Logger *slog.Logger
	// Sockets are where it gets those that it listens on; nil: of its own.
	Sockets *sockets.Set
	// Resolvers is the file that names those of the host; "": /etc/resolv.conf.
	Resolvers string

	mu        sync.Mutex
	ctx       context.Context // of Run; nil before
	retired   bool
	work      sync.WaitGroup
	zones     map[string]*api.Zone       // by network
	gateways  map[string]string          // network by address
	clients   map[string]*api.NameClient // by address
	news      chan struct{}              // closed when Names was called
	listening map[string]*listener       // by address
	upstream  upstream
}

// listener is an address that is answered on.
type listener struct {
	cancel context.CancelFunc
	tried  chan struct{} // closed once it listens, or can't
}

// Start has it serve from now on; Run must follow.
func (s *Server) Start(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.retired {
		s.ctx = ctx
	}
	s.listen()
}

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	s.Start(ctx)
	<-ctx.Done()
	s.mu.Lock()
	s.ctx = nil
	s.mu.Unlock()
	s.work.Wait()
	return ctx.Err()
}

// Names replaces what is known. While the server runs, it returns once it answers
// on all addresses, or has tried to.
func (s *Server) Names(n *api.Names) {
	for _, tried := range s.replace(n) {
		<-tried
	}
}

func (s *Server) replace(n *api.Names) (tried []chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.zones, s.gateways, s.clients = map[string]*api.Zone{}, map[string]string{}, map[string]*api.NameClient{}
	for _, z := range n.Zones {
		s.zones[z.Network], s.gateways[z.Gateway] = z, z.Network
	}
	for _, c := range n.Clients {
		s.clients[c.Address] = c
	}
	if s.news != nil {
		close(s.news)
	}
	s.news = make(chan struct{})
	s.listen()
	for _, l := range s.listening {
		tried = append(tried, l.tried)
	}
	return tried
}

// listen makes the listeners those of the zones; s.mu is held.
func (s *Server) listen() {
	if s.ctx == nil {
		return
	}
	if s.listening == nil {
		s.listening = map[string]*listener{}
	}
	for gateway := range s.gateways {
		if s.listening[gateway] != nil {
			continue
		}
		ctx, cancel := context.WithCancel(s.ctx)
		l := &listener{cancel, make(chan struct{})}
		s.listening[gateway] = l
		s.work.Go(func() { s.serve(ctx, gateway, sync.OnceFunc(func() { close(l.tried) })) })
	}
	for gateway, l := range s.listening {
		if _, wanted := s.gateways[gateway]; !wanted {
			l.cancel()
			delete(s.listening, gateway)
		}
	}
}

// serve answers on one address, by UDP and TCP, until ctx ends; it calls tried
// when it has begun, or can't.
func (s *Server) serve(ctx context.Context, gateway string, tried func()) {
	said := false
	defer tried()
	for ctx.Err() == nil {
		err := s.answerOn(ctx, net.JoinHostPort(gateway, port), gateway, tried)
		tried()
		if err != nil && ctx.Err() == nil {
			if !said {
				said = true
				s.Logger.Error("cannot answer tasks that ask for names; trying again", "address", gateway, "error", err)
			}
			t := time.NewTimer(again)
			select {
			case <-ctx.Done():
			case <-t.C:
			}
			t.Stop()
		}
	}
}

func (s *Server) answerOn(ctx context.Context, address, gateway string, up func()) error {
	packets, err := s.Sockets.ListenPacket(ctx, "udp4", address, true)
	if err != nil {
		return err
	}
	defer packets.Close()
	streams, err := s.Sockets.Listen(ctx, "tcp4", address, true)
	if err != nil {
		return err
	}
	defer streams.Close()
	up()
	asked, cancel := context.WithCancel(context.WithoutCancel(ctx)) // what was asked is answered yet
	defer cancel()
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		host, _, _ := net.SplitHostPort(w.RemoteAddr().String())
		_, udp := w.RemoteAddr().(*net.UDPAddr)
		a := s.answer(asked, q, host, gateway)
		if udp {
			a.Truncate(room(q))
		}
		_ = w.WriteMsg(a)
	})
	servers := []*dns.Server{{PacketConn: packets, Handler: handler}, {Listener: streams, Handler: handler}}
	failed := make(chan error, len(servers))
	for _, server := range servers {
		go func() { failed <- server.ActivateAndServe() }()
	}
	ended := len(servers)
	select {
	case <-ctx.Done():
		err = nil
	case err = <-failed:
		ended--
	}
	late, over := context.WithTimeout(asked, askFor)
	defer over()
	for _, server := range servers {
		_ = server.ShutdownContext(late) // one that never began, or failed, has nothing to end
	}
	packets.Close()
	streams.Close()
	for range ended {
		<-failed
	}
	return err
}

// room is how much fits into the datagram that answers q.
func room(q *dns.Msg) int {
	if opt := q.IsEdns0(); opt != nil && opt.UDPSize() > dns.MinMsgSize {
		return min(int(opt.UDPSize()), 1232)
	}
	return dns.MinMsgSize
}

// answer is that to a question from an address on the network of gateway.
func (s *Server) answer(ctx context.Context, q *dns.Msg, from, gateway string) *dns.Msg {
	if len(q.Question) == 1 && q.Question[0].Name == "orch-check." {
		return failure(q, dns.RcodeNameError)
	}
	if len(q.Question) != 1 || q.Opcode != dns.OpcodeQuery || q.Question[0].Qclass != dns.ClassINET {
		return failure(q, dns.RcodeNotImplemented)
	}
	ask := q.Question[0]
	name := strings.ToLower(strings.TrimSuffix(ask.Name, "."))
	hold := time.NewTimer(holdFor)
	defer hold.Stop()
	for {
		s.mu.Lock()
		zones, held, news := s.zonesOf(from, gateway)
		s.mu.Unlock()
		found := lookup(zones, name)
		if found == nil {
			if len(zones) == 0 { // it is on no network of ours
				return failure(q, dns.RcodeRefused)
			}
			if internal(zones) {
				return failure(q, dns.RcodeNameError)
			}
			return s.upstream.ask(ctx, q, s.Resolvers)
		}
		if held && found.virtual {
			select {
			case <-news:
				continue
			case <-hold.C:
			case <-ctx.Done():
			}
		}
		return found.reply(q)
	}
}

// zonesOf are those that the asker is on, that of the gateway first; s.mu is
// held.
func (s *Server) zonesOf(from, gateway string) (zones []*api.Zone, held bool, news chan struct{}) {
	here := s.gateways[gateway]
	z, c := s.zones[here], s.clients[from]
	if z != nil && (within(from, z.Subnet) || c != nil && slices.Contains(c.Networks, here)) {
		zones = append(zones, z)
	}
	if c != nil {
		held = c.Held
		for _, n := range c.Networks {
			if z := s.zones[n]; n != here && z != nil {
				zones = append(zones, z)
			}
		}
	}
	return zones, held, s.news
}

// Retire ends answering, for good: another process does it on the same sockets.
// It returns once all questions are answered.
func (s *Server) Retire() {
	s.mu.Lock()
	s.ctx, s.retired = nil, true
	for _, l := range s.listening {
		l.cancel()
	}
	s.mu.Unlock()
	s.work.Wait()
}

// Check asks each of the server's own addresses; n is how many answer.
func (s *Server) Check(ctx context.Context) (n int, err error) {
	s.mu.Lock()
	gateways := slices.Sorted(maps.Keys(s.gateways))
	s.mu.Unlock()
	for _, g := range gateways {
		q := new(dns.Msg).SetQuestion("orch-check.", dns.TypeSOA)
		ctx, cancel := context.WithTimeout(ctx, askFor)
		c := dns.Client{Timeout: askFor}
		if _, _, err := c.ExchangeContext(ctx, q, net.JoinHostPort(g, port)); err != nil {
			cancel()
			return n, fmt.Errorf("no answer on %s: %w: something else may listen there, or a firewall keep it away", g, err)
		}
		cancel()
		n++
	}
	return n, nil
}

// within says that an address is in a subnet.
func within(address, subnet string) bool {
	a, err1 := netip.ParseAddr(address)
	p, err2 := netip.ParsePrefix(subnet)
	return err1 == nil && err2 == nil && p.Contains(a.Unmap())
}

func internal(zones []*api.Zone) bool {
	for _, z := range zones {
		if !z.Internal {
			return false
		}
	}
	return true
}

func failure(q *dns.Msg, code int) *dns.Msg {
	a := new(dns.Msg)
	a.SetRcode(q, code)
	return a
}

package carrier

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"orch/agent/detached"
	"orch/agent/ingress"
	"orch/agent/names"
	"orch/agent/relay"
	"orch/agent/sockets"
	"orch/engine/api"
	"orch/engine/api/apiconnect"
)

// lookEvery so often a carrier looks whether its folder is still there: without
// it nobody could ever reach it.
const lookEvery = 2 * time.Second

// Main is the whole life of a carrier; it does not return. A program that holds a
// Carrier must call it first in main when Is says so.
func Main(wallet Wallet) {
	detached.Main(func(args []string, up func()) error {
		if len(args) != 3 {
			return errors.New("a carrier is started by an agent")
		}
		number, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		before, err := strconv.Atoi(args[2])
		if err != nil {
			return err
		}
		debug.SetGCPercent(50)
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, unix.SIGTERM)
		ctx, cancel := context.WithCancel(context.Background())
		go func() { <-signals; cancel() }()
		return serve(ctx, wallet, args[0], number, before, up)
	})
}

// process is a carrier.
type process struct {
	wallet  Wallet
	hub     *hub
	log     *slog.Logger
	sockets *sockets.Set
	ports   *ingress.Publisher
	names   *names.Server
	others  *relay.Client
	relay   *relay.Server
	between *forwarder
	end     context.CancelFunc

	publishing sync.Mutex

	mu        sync.Mutex
	ctx       context.Context
	published *api.Published
	nodes     map[string]string // where their relays are, by id
	tasks     map[taskPort]string
	port      uint32 // of the relay; 0: it isn't open
	retired   bool
	settled   bool
}

type taskPort struct {
	task string
	port uint32
}

// serve is a carrier with its number until ctx ends, or all that it carries has
// ended after it retired. It takes the sockets of the one before, unless that
// is 0.
func serve(ctx context.Context, wallet Wallet, dir string, number, before int, up func()) error {
	p := &process{wallet: wallet, hub: &hub{}, sockets: &sockets.Set{}}
	p.log = slog.New(p.hub)
	p.between = &forwarder{sockets: p.sockets, log: p.log, file: filepath.Join(dir, "forwarded.json")}
	if before > 0 {
		from, err := sockets.DialUnix(ctx, "unixpacket", dir, gives(before))
		if err != nil {
			return fmt.Errorf("cannot take over from the carrier before: %w", err)
		}
		err = p.sockets.Take(from.(*net.UnixConn))
		from.Close()
		if err != nil {
			return fmt.Errorf("cannot take over from the carrier before: %w", err)
		}
		p.between.read()
	}
	asks, err := sockets.ListenUnix("unix", dir, asked(number))
	if err != nil {
		return err
	}
	defer asks.Close()
	giving, err := sockets.ListenUnix("unixpacket", dir, gives(number))
	if err != nil {
		return err
	}
	defer giving.Close()
	files := []string{filepath.Join(dir, asked(number)), filepath.Join(dir, gives(number))}
	defer func() {
		for _, f := range files {
			_ = os.Remove(f)
		}
	}()
	ctx, p.end = context.WithCancel(ctx)
	defer p.end()
	p.ctx = ctx
	p.ports = &ingress.Publisher{Logger: p.log, Sockets: p.sockets, Dial: p.dial, Ended: p.hub.ended, Closed: p.hub.closes}
	p.hub.closed = p.ports.ClosedPorts
	p.names = &names.Server{Logger: p.log, Sockets: p.sockets}
	p.others = &relay.Client{TLS: wallet.Client, Address: p.relayOf}
	defer p.others.Close()
	p.relay = &relay.Server{TLS: wallet.Server(), Peer: p.peer, Lookup: p.lookup, Logger: p.log}
	var parts sync.WaitGroup
	defer parts.Wait()
	p.ports.Start(ctx) // not when its goroutine begins: then it might be told already what to publish
	p.names.Start(ctx)
	parts.Go(func() { p.ports.Run(ctx) })
	parts.Go(func() { p.names.Run(ctx) })
	parts.Go(func() { p.give(ctx, giving) })
	parts.Go(func() { p.look(ctx, files[0]) })
	mux := http.NewServeMux()
	mux.Handle(apiconnect.NewCarrierServiceHandler(service{p}))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(p.log.Handler(), slog.LevelDebug)}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	up()
	if err := server.Serve(asks); ctx.Err() == nil {
		p.end()
		return err
	}
	return nil
}

// give sends the listening sockets to whoever asks.
func (p *process) give(ctx context.Context, l net.Listener) {
	defer context.AfterFunc(ctx, func() { l.Close() })()
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		p.between.write()
		if err := p.sockets.Give(c.(*net.UnixConn)); err != nil {
			p.log.Warn("a successor didn't get the listening sockets", "error", err)
		}
		c.Close()
	}
}

// look ends the carrier when its socket's file is gone, and tries again what
// failed.
func (p *process) look(ctx context.Context, file string) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if _, err := os.Lstat(file); errors.Is(err, os.ErrNotExist) {
				p.end()
				return
			}
			p.between.again(ctx)
		}
	}
}

// retire stops listening and, once nothing is left, ends.
func (p *process) retire() {
	p.mu.Lock()
	was := p.retired
	p.retired = true
	ctx := p.ctx
	p.mu.Unlock()
	if was {
		return
	}
	go func() { // ends at the latest with the process
		var all sync.WaitGroup
		all.Go(p.ports.Retire)
		all.Go(p.names.Retire)
		all.Go(func() { p.relay.Retire(ctx) })
		p.between.end()
		all.Wait()
		p.end()
	}()
}

// admit takes credentials, and opens the relay with the first.
func (p *process) admit(a *api.Admission) (port uint32, err error) {
	if err := p.wallet.Admit(a); err != nil {
		return 0, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.port > 0 || p.retired {
		return p.port, nil
	}
	var l net.Listener
	for _, port := range []uint32{a.Port, 0} {
		if l, err = p.sockets.Listen(p.ctx, "tcp", ":"+strconv.FormatUint(uint64(port), 10), false); err == nil {
			break
		}
		p.log.Warn("the port for other nodes is taken; another one is used, which a firewall may not let through", "port", port, "error", err)
	}
	if err != nil {
		return 0, fmt.Errorf("cannot let other nodes reach the tasks here: %w", err)
	}
	p.port = uint32(l.Addr().(*net.TCPAddr).Port)
	go func() { // ends with ctx, or when it retires
		err := p.relay.Serve(p.ctx, l)
		if err != nil && p.ctx.Err() == nil && !errors.Is(err, http.ErrServerClosed) {
			p.log.Error("other nodes don't reach the tasks here any more", "error", err)
		}
	}()
	return p.port, nil
}

// publish changes what leads to tasks.
func (p *process) publish(q *api.PublishRequest) {
	p.publishing.Lock() // the agent may have given up on the change before
	defer p.publishing.Unlock()
	p.mu.Lock()
	all := follow(p.published, q)
	p.published = all
	p.nodes, p.tasks = map[string]string{}, map[taskPort]string{}
	for _, n := range all.Nodes {
		p.nodes[n.Id] = n.Relay
	}
	for _, t := range all.Reachable {
		p.tasks[taskPort{t.TaskId, t.Port}] = t.Address
	}
	port := p.port
	p.mu.Unlock()
	p.between.serve(p.ctx, port, all.Forwarded)
	p.ports.Publish(all.Routes)
}

// resolve replaces the names; with the first, all that listens does so.
func (p *process) resolve(n *api.Names) {
	p.names.Names(n)
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.settled {
		p.settled = true
		p.sockets.Settle()
	}
}

func (p *process) dial(ctx context.Context, t *api.Target) (net.Conn, error) {
	network := "tcp"
	if t.Udp {
		network = "udp"
	}
	return p.others.Connect(ctx, network, t.Node, t.TaskId, t.Port)
}

func (p *process) relayOf(node string) (address string, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	address = p.nodes[node]
	return address, address != ""
}

// peer is the node at the other end, if it is one of the cluster's: a
// certificate outlives its node's membership.
func (p *process) peer(s *tls.ConnectionState) string {
	node := p.wallet.Node(s)
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, known := p.nodes[node]; known {
		return node
	}
	return ""
}

func (p *process) lookup(task string, port uint32) (address string, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	address, ok = p.tasks[taskPort{task, port}]
	return address, ok
}

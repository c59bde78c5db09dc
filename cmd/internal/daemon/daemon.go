// Package daemon is what a host is in its cluster: always an agent, and an
// engine as long as the cluster says so. It keeps the host's certificate
// fresh, follows what the cluster says of its role, and answers on a socket
// in the data folder.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"orch/agent"
	"orch/cmd/internal/socket"
	"orch/engine"
	"orch/engine/api"
	"orch/engine/api/apiconnect"
	"orch/engine/ca"
	"orch/engine/folder"
	"orch/engine/operator"
)

// Config of a daemon.
type Config struct {
	Dir       string // data folder
	NoAgent   bool   // it runs no tasks
	Version   string // of orch
	Evaluator operator.Evaluator
	Logger    *slog.Logger
}

// Daemon is a host's. All methods are safe for concurrent use.
type Daemon struct {
	cfg    Config
	folder *folder.Folder
	log    *slog.Logger
	socket net.Listener
	server *http.Server
	wallet *ca.Wallet

	unlocked chan struct{} // closed once the keys are open
	renew    chan struct{} // the certificate should be replaced now
	trusts   chan struct{} // the agent should tell what it trusts
	ready    chan struct{} // closed once the first engine, or the agent, is at work
	once     sync.Once
	end      context.CancelCauseFunc

	mu     sync.Mutex
	role   chan struct{} // closed and replaced when the role changes
	state  string        // see api.HostStatus
	reason string
	engine *engine.Engine
	agent  *agent.Agent
}

// Open takes the data folder and listens on its socket. Run must follow, and
// Close.
func Open(cfg Config) (*Daemon, error) {
	f, err := folder.Open(cfg.Dir)
	if err != nil {
		return nil, err
	}
	d := &Daemon{
		cfg: cfg, folder: f, log: cfg.Logger, state: "starting",
		unlocked: make(chan struct{}), renew: make(chan struct{}, 1), trusts: make(chan struct{}, 1), ready: make(chan struct{}), role: make(chan struct{}),
		end: func(error) {},
	}
	if _, err := f.Keys(); err == nil {
		close(d.unlocked)
	} else {
		d.state, d.reason = "locked", err.Error()
	}
	if d.socket, err = socket.Listen(cfg.Dir); err != nil {
		f.Close()
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle(apiconnect.NewHostServiceHandler(host{d}))
	mux.HandleFunc("/", d.serveCluster)
	d.server = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, Protocols: new(http.Protocols)}
	d.server.Protocols.SetHTTP1(true) // curl
	d.server.Protocols.SetUnencryptedHTTP2(true)
	go func() { _ = d.server.Serve(d.socket) }() // ends with Close
	return d, nil
}

// Folder is the data folder that the daemon has.
func (d *Daemon) Folder() *folder.Folder { return d.folder }

// Ready closes once requests are answered.
func (d *Daemon) Ready() <-chan struct{} { return d.ready }

// Bare says that nothing is left of any task here.
func (d *Daemon) Bare() bool {
	d.mu.Lock()
	a := d.agent
	d.mu.Unlock()
	return a != nil && a.Bare()
}

// Left forgets the cluster, if err says that Run ended because the host left
// it; else it returns err.
func (d *Daemon) Left(err error) error {
	if !errors.Is(err, errLeft) {
		return err
	}
	return d.folder.Leave()
}

// leaveWithin bounds how long stopping the tasks of a host that leaves may
// take.
const leaveWithin = 2 * time.Minute

// Close gives the folder free; after Run has returned.
func (d *Daemon) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if d.server.Shutdown(ctx) != nil { // whoever follows logs doesn't end by itself
		d.server.Close()
	}
	d.folder.Close()
}

// serveCluster is the cluster's API on the socket.
func (d *Daemon) serveCluster(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	e, state, reason := d.engine, d.state, d.reason
	d.mu.Unlock()
	if e != nil {
		e.Local("root@"+d.folder.Membership().GetName()).ServeHTTP(w, r)
		return
	}
	err := connect.NewError(connect.CodeUnavailable, errors.New("the engine is starting"))
	m := d.folder.Membership()
	switch {
	case state == "locked":
		err = connect.NewError(connect.CodeFailedPrecondition, folder.ErrLocked)
	case reason != "":
		err = connect.NewError(connect.CodeUnavailable, errors.New(reason))
	case m != nil && m.Role != string(ca.Engine):
		err = connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("this host is a worker of cluster %q: ask one of its engines (%s), or use a context", m.ClusterName, Names(m.Engines)))
	}
	_ = connect.NewErrorWriter().Write(w, r, err) // a client that is gone needs no answer
}

// Names are engines as a sentence has them.
func Names(peers []*api.Peer) string {
	text := ""
	for i, p := range peers {
		if i > 0 {
			text += ", "
		}
		text += p.Name + " at " + p.Address
	}
	return text
}

func (d *Daemon) set(state, reason string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.state != "leaving" {
		d.state, d.reason = state, reason
	}
}

// Run works until ctx ends, or until the host has left its cluster.
func (d *Daemon) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	d.mu.Lock()
	d.end = cancel
	d.mu.Unlock()
	select {
	case <-d.unlocked:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if d.folder.Membership() == nil {
		return errors.New("this host is in no cluster yet: `orch cluster init` makes one, `orch join` joins one")
	}
	var err error
	if d.wallet, err = ca.NewWallet(d.folder.Credentials()); err != nil {
		return fmt.Errorf("cannot use this host's certificate: %w", err)
	}
	var work sync.WaitGroup
	defer work.Wait()
	part := func(run func(context.Context) error) {
		work.Go(func() {
			if err := run(ctx); err != nil && ctx.Err() == nil {
				cancel(err)
			}
		})
	}
	part(d.keepCertificate)
	part(d.keepEngine)
	if !d.cfg.NoAgent {
		part(d.keepAgent)
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

// errLeft ends Run of a host that has left its cluster.
var errLeft = errors.New("this host has left its cluster")

// is says what the cluster wants this host to be, and what its certificate
// lets it be.
func (d *Daemon) is(role ca.Role) bool {
	leaf := d.wallet.Leaf()
	return d.folder.Membership().GetRole() == string(role) && leaf != nil && len(leaf.Subject.Organization) == 1 && leaf.Subject.Organization[0] == string(role)
}

// roleChange closes when the role changes next.
func (d *Daemon) roleChange() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.role
}

// learn keeps what the cluster says of this host.
func (d *Daemon) learn(m *api.Membership) {
	before := d.folder.Membership()
	if err := d.folder.SetMembership(m); err != nil {
		d.log.Error("cannot keep what the cluster says of this host", "error", err)
		return
	}
	if err := d.wallet.Set(d.folder.Credentials()); err != nil {
		d.log.Error("cannot use what the cluster says of this host", "error", err)
		return
	}
	poke(d.trusts)
	if m.Renew || !d.is(ca.Role(m.Role)) {
		poke(d.renew)
	}
	if before.GetRole() != m.Role || len(m.Certificate) > 0 {
		d.mu.Lock()
		close(d.role)
		d.role = make(chan struct{})
		d.mu.Unlock()
	}
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// keepEngine runs the engine whenever this host is one.
func (d *Daemon) keepEngine(ctx context.Context) error {
	for {
		changed := d.roleChange()
		if d.is(ca.Engine) {
			if err := d.runEngine(ctx); err != nil {
				return err
			}
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// runEngine returns nil once this host is no engine any more.
func (d *Daemon) runEngine(ctx context.Context) error {
	within, stop := context.WithCancel(ctx)
	defer stop()
	go func() { // ends with within
		for {
			changed := d.roleChange()
			if !d.is(ca.Engine) && d.folder.Membership().GetRole() != string(ca.Engine) {
				d.retire(within)
				stop()
				return
			}
			select {
			case <-within.Done():
				return
			case <-changed:
			}
		}
	}()
	settings, err := d.folder.Settings()
	if err != nil {
		return err
	}
	e, err := engine.Open(within, engine.Config{
		Folder: d.folder, Wallet: d.wallet, Listen: settings.Listen, Advertise: settings.Advertise,
		Evaluator: d.cfg.Evaluator, Version: d.cfg.Version, Logger: d.log, Membership: d.learn,
	})
	if err != nil {
		if within.Err() != nil && ctx.Err() == nil {
			return d.folder.ForgetLog()
		}
		return err
	}
	d.mu.Lock()
	d.engine = e
	d.mu.Unlock()
	go func() { // ends with within
		select {
		case <-e.Ready():
			d.isReady()
		case <-within.Done():
		}
	}()
	err = e.Run(within)
	d.mu.Lock()
	d.engine = nil
	d.mu.Unlock()
	if closeErr := e.Close(); closeErr != nil {
		d.log.Warn("the engine did not end well", "error", closeErr)
	}
	if ctx.Err() == nil && within.Err() != nil {
		d.log.Info("this host is no engine any more")
		return d.folder.ForgetLog()
	}
	return err
}

// retireWithin bounds how long a demoted engine goes on for the others.
const retireWithin = 30 * time.Second

func (d *Daemon) retire(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, retireWithin)
	defer cancel()
	d.mu.Lock()
	e := d.engine
	d.mu.Unlock()
	if e != nil {
		e.Retire(ctx)
	}
}

func (d *Daemon) isReady() {
	d.once.Do(func() {
		d.set("running", "")
		close(d.ready)
	})
}

// firstEngine is how long an agent waits for the engine of its own host.
const firstEngine = 2 * time.Second

// keepAgent runs the agent.
func (d *Daemon) keepAgent(ctx context.Context) error {
	if d.is(ca.Engine) {
		wait := time.NewTimer(firstEngine)
		defer wait.Stop()
		select {
		case <-d.ready:
		case <-wait.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	m := d.folder.Membership()
	settings, err := d.folder.Settings()
	if err != nil {
		return err
	}
	address := "127.0.0.1"
	if h, _, err := net.SplitHostPort(settings.Advertise); err == nil && h != "" {
		address = h
	}
	a, err := agent.New(agent.Config{
		NodeID: d.folder.ID, Name: m.Name, Cluster: m.ClusterId, Dir: d.folder.Dir, Address: address, Engines: d.engines,
		TLS: d.wallet.Client(ca.ProtoHTTP), Version: d.cfg.Version, Trust: d.trust, Trusts: d.trusts,
		Membership: d.learn, Refused: d.refused, Logger: d.log,
	})
	if err != nil {
		return err
	}
	d.mu.Lock()
	d.agent = a
	d.mu.Unlock()
	if !d.is(ca.Engine) {
		d.isReady()
	}
	return a.Run(ctx)
}

// engines are the addresses of those that are known, this host's first.
func (d *Daemon) engines() []string {
	var all []string
	d.mu.Lock()
	if d.engine != nil {
		all = append(all, d.engine.Address())
	}
	d.mu.Unlock()
	for _, p := range d.folder.Membership().GetEngines() {
		if len(all) == 0 || p.Address != all[0] {
			all = append(all, p.Address)
		}
	}
	return all
}

// trust adds to a node's facts which CAs it trusts.
func (d *Daemon) trust(f *api.NodeFacts) {
	c := d.wallet.Credentials()
	for _, root := range c.Roots {
		f.Roots = append(f.Roots, ca.Digest(root))
	}
	f.Issuer = ca.Issuer(c.Certificate, c.Roots)
	if leaf := d.wallet.Leaf(); leaf != nil {
		f.CertificateUntil = timestamppb.New(leaf.NotAfter)
	}
}

// refused is told why the cluster doesn't want this node.
func (d *Daemon) refused(reason string) {
	switch reason {
	case api.ReasonRenew:
		poke(d.renew)
	case api.ReasonRemoved:
		d.log.Warn("the cluster has removed this node: its tasks are stopped")
		if !d.leaving() {
			return // it is under way
		}
		go func() { // ends once the tasks are gone
			ctx, cancel := context.WithTimeout(context.Background(), leaveWithin)
			defer cancel()
			if err := d.clear(ctx); err != nil {
				d.log.Error("cannot leave the cluster in order", "error", err)
			}
			d.finish()
		}()
	}
}

// leaving is false if the host is leaving its cluster already.
func (d *Daemon) leaving() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.state == "leaving" {
		return false
	}
	d.state, d.reason = "leaving", "its tasks are being stopped"
	return true
}

// clear stops this host's tasks.
func (d *Daemon) clear(ctx context.Context) error {
	d.mu.Lock()
	a := d.agent
	d.mu.Unlock()
	if a == nil {
		return nil
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for range 2 { // an engine that didn't hear of it may assign some meanwhile
		for a.Evict(); !a.Bare(); {
			select {
			case <-ctx.Done():
				return fmt.Errorf("tasks still run: %w", ctx.Err())
			case <-tick.C:
			}
		}
	}
	return nil
}

// finish ends Run.
func (d *Daemon) finish() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.end(errLeft)
}

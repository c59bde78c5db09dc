package daemon

import (
	"context"
	"net"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"orch/agent"
	"orch/engine/api"
	"orch/engine/ca"
)

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
	var peers *agent.Peers
	if h, port, err := net.SplitHostPort(settings.Advertise); err == nil && h != "" {
		address = h
		n, _ := strconv.Atoi(port) // it was checked when it was set
		peers = &agent.Peers{Port: n + 1, Admission: d.admission}
	}
	a, err := agent.New(agent.Config{
		NodeID: d.folder.ID, Name: m.Name, Cluster: m.ClusterId, Dir: d.folder.Dir, Address: address, Engines: d.engines,
		TLS: d.wallet.Client(ca.ProtoHTTP), Peers: peers, Version: d.cfg.Version, Trust: d.trust, Trusts: d.trusts,
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

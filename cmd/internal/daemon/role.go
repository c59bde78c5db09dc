package daemon

import (
	"context"
	"time"

	"orch/engine"
	"orch/engine/api"
	"orch/engine/ca"
)

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
		Evaluator: d.cfg.Evaluator, Strategy: d.cfg.Strategy, Version: d.cfg.Version, Logger: d.log, Membership: d.learn,
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

package daemon

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"connectrpc.com/connect"

	"orch/engine/api"
	"orch/engine/ca"
)

// renewAgain is the pause after a certificate couldn't be renewed.
const renewAgain = 5 * time.Second

// keepCertificate renews the certificate at 50 to 80 % of its life, and when
// the cluster asks for it.
func (d *Daemon) keepCertificate(ctx context.Context) error {
	due := time.NewTimer(d.renewIn())
	defer due.Stop()
	said := ""
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-due.C:
		case <-d.renew:
		}
		err := d.renewOnce(ctx)
		if err == nil {
			said = ""
			due.Reset(d.renewIn())
			continue
		}
		if text := err.Error(); text != said && ctx.Err() == nil {
			d.log.Warn("cannot renew this host's certificate; it is tried again", "error", err)
			said = text
		}
		due.Reset(renewAgain/2 + rand.N(renewAgain))
	}
}

func (d *Daemon) renewIn() time.Duration {
	leaf := d.wallet.Leaf()
	if leaf == nil {
		return 0
	}
	life := leaf.NotAfter.Sub(leaf.NotBefore.Add(ca.Backdated))
	at := leaf.NotBefore.Add(ca.Backdated + time.Duration(float64(life)*(0.5+0.3*rand.Float64())))
	return max(time.Until(at), 0)
}

func (d *Daemon) renewOnce(ctx context.Context) error {
	client, done := d.nodeService() // a connection of its own: it shows the certificate of now
	defer done()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	keys, err := d.folder.Keys()
	if err != nil {
		return err
	}
	csr, err := ca.Request(keys.Node)
	if err != nil {
		return err
	}
	r, err := client.Renew(ctx, connect.NewRequest(&api.RenewRequest{Csr: csr}))
	if err != nil {
		return err
	}
	if len(r.Msg.Certificate) == 0 {
		return fmt.Errorf("the cluster gave no certificate")
	}
	d.log.Info("this host has a new certificate", "role", r.Msg.Role)
	d.learn(r.Msg)
	return nil
}

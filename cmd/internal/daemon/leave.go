package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"orch/engine/api"
)

// Left forgets the cluster, if err says that Run ended because the host left
// it; else it returns err.
func (d *Daemon) Left(err error) error {
	if !errors.Is(err, errLeft) {
		return err
	}
	d.mu.Lock()
	a := d.agent
	d.mu.Unlock()
	if a != nil {
		if err := a.Dismantle(); err != nil {
			d.log.Error("something of the cluster's networks is left on this host", "error", err)
		}
	}
	return d.folder.Leave()
}

// leaveWithin bounds how long stopping the tasks of a host that leaves may
// take.
const leaveWithin = 2 * time.Minute

// errLeft ends Run of a host that has left its cluster.
var errLeft = errors.New("this host has left its cluster")

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

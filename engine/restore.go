package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"google.golang.org/protobuf/types/known/timestamppb"

	"orch/engine/api"
	"orch/engine/backup"
	"orch/engine/ca"
	"orch/engine/enroll"
	"orch/engine/folder"
	"orch/engine/seal"
	"orch/engine/state"
	"orch/engine/store"
)

// Restore makes a folder that of the only engine of a backup's cluster. Its
// other engines are removed; its workers are kept.
func Restore(f *folder.Folder, from io.Reader, node, address string) error {
	h, s, err := backup.Read(from)
	if err != nil {
		return err
	}
	key, err := seal.KeyOf(h.DataKey)
	if err != nil {
		return err
	}
	if err := f.UpdateKeys(func(k *folder.Keys) { k.Data, k.Log = key[:], true }); err != nil {
		return err
	}
	keys, err := f.Keys()
	if err != nil {
		return err
	}
	self, err := enroll.Founder(f.ID, node, address, keys.Node.Public())
	if err != nil {
		return err
	}
	change := func(c *api.Command) error {
		c.Time, c.Version = timestamppb.Now(), state.CommandSet
		return s.Apply(s.View().Index()+1, c).Err
	}
	for _, n := range s.View().Nodes() {
		if n.Role == string(ca.Engine) || n.Name == node {
			if err := change(&api.Command{Kind: &api.Command_RemoveNode{RemoveNode: &api.RemoveNode{Id: n.Id}}}); err != nil {
				return err
			}
		}
	}
	if err := change(&api.Command{Kind: &api.Command_PutNode{PutNode: self}}); err != nil {
		return fmt.Errorf("cannot take this host into the cluster: %w", err)
	}
	if err := store.Seed(store.Config{Dir: f.Dir, NodeID: f.ID, Address: address, Key: keys.Disk}, s.View()); err != nil {
		return err
	}
	csr, err := ca.Request(keys.Node)
	if err != nil {
		return err
	}
	m, err := (&enroll.Desk{Store: still{s}, Key: key}).Sign(f.ID, csr)
	if err != nil {
		return err
	}
	return f.SetMembership(m)
}

// still is a state that doesn't change.
type still struct{ *state.State }

func (still) Propose(context.Context, *api.Command) (state.Result, error) {
	return state.Result{}, errors.New("this state doesn't change")
}

// Recover makes the log in a folder that of the only engine of its cluster.
// The other engines are removed once it runs.
func Recover(f *folder.Folder, log *slog.Logger) error {
	keys, err := f.Keys()
	if err != nil {
		return err
	}
	settings, err := f.Settings()
	if err != nil {
		return err
	}
	if err := store.Recover(store.Config{Dir: f.Dir, NodeID: f.ID, Address: settings.Advertise, Key: keys.Disk, Logger: log}); err != nil {
		return err
	}
	// Not before: a log that could not be recovered must not lose its others.
	settings.Alone = true
	return f.SetSettings(settings)
}

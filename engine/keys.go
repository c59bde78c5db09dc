package engine

import (
	"context"
	"fmt"
	"time"

	"connectrpc.com/connect"

	"orch/engine/api"
	"orch/engine/api/apiconnect"
	"orch/engine/ca"
	"orch/engine/folder"
	"orch/engine/reach"
)

// relock locks this host's keys as the cluster says now.
func (e *Engine) relock() {
	v := e.store.View()
	if v.Cluster() == nil {
		return
	}
	key, err := e.desk.UnlockKey(v)
	if err == nil {
		err = e.cfg.Folder.SetUnlockKey(folder.UnlockKey(key))
	}
	if err != nil {
		e.cfg.Logger.Error("cannot lock this engine's keys as the cluster says", "error", err)
	}
}

// fetchKeys asks the other engines for what only engines know.
func (e *Engine) fetchKeys(ctx context.Context) error {
	addresses := func() []string {
		var all []string
		for _, p := range e.cfg.Folder.Membership().GetEngines() {
			if p.NodeId != e.id {
				all = append(all, p.Address)
			}
		}
		return all
	}
	client := reach.New(addresses, e.cfg.Wallet.Client(ca.ProtoHTTP))
	defer client.CloseIdleConnections()
	others := apiconnect.NewNodeServiceClient(client, reach.URL, connect.WithGRPC())
	again := time.NewTicker(announceAgain)
	defer again.Stop()
	for {
		try, cancel := context.WithTimeout(ctx, 5*time.Second)
		r, err := others.Keys(try, connect.NewRequest(&api.KeysRequest{}))
		cancel()
		if err == nil {
			if err := e.cfg.Folder.UpdateKeys(func(k *folder.Keys) { k.Data = r.Msg.DataKey }); err != nil {
				return err
			}
			var key folder.UnlockKey
			if len(r.Msg.UnlockKey) > 0 {
				key = r.Msg.UnlockKey
			}
			return e.cfg.Folder.SetUnlockKey(key)
		}
		e.cfg.Logger.Warn("cannot get the cluster's data key yet", "error", err)
		select {
		case <-ctx.Done():
			return fmt.Errorf("cannot get the cluster's data key from its engines: %w", err)
		case <-again.C:
		}
	}
}

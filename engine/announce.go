package engine

import (
	"context"
	"slices"
	"time"

	"connectrpc.com/connect"

	"orch/engine/api"
	"orch/engine/api/apiconnect"
	"orch/engine/ca"
	"orch/engine/enroll"
	"orch/engine/reach"
	"orch/engine/state"
)

func (e *Engine) announcement() *api.AnnounceRequest {
	return &api.AnnounceRequest{NodeId: e.id, Address: e.address, Applied: e.store.Applied(), CommandSet: state.CommandSet, Version: e.cfg.Version}
}

const (
	announceEvery = time.Second
	// announceAgain while nobody was reached.
	announceAgain = 200 * time.Millisecond
	// leaderLook often a new leader is looked for, to announce at once.
	leaderLook = 50 * time.Millisecond
)

// announce tells the leader that this engine is there, and keeps what it
// answers.
func (e *Engine) announce(ctx context.Context) {
	client := reach.New(e.addresses, e.cfg.Wallet.Client(ca.ProtoHTTP))
	defer client.CloseIdleConnections()
	others := apiconnect.NewNodeServiceClient(client, reach.URL, connect.WithGRPC())
	again := time.NewTimer(0)
	defer again.Stop()
	look := time.NewTicker(leaderLook)
	defer look.Stop()
	said, told := "", ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-again.C:
		case <-look.C:
			if leader := e.otherLeader(); leader == told || leader == "" {
				continue
			}
		}
		told = e.otherLeader()
		m, err := e.announceOnce(ctx, others)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			client.CloseIdleConnections() // the next one shows the certificate of now
			if text := err.Error(); text != said {
				e.cfg.Logger.Warn("cannot reach the leader", "error", err)
				said = text
			}
			again.Reset(announceAgain)
			continue
		case m != nil && e.cfg.Membership != nil:
			e.cfg.Membership(m)
		}
		said = ""
		again.Reset(announceEvery)
	}
}

func (e *Engine) announceOnce(ctx context.Context, others apiconnect.NodeServiceClient) (*api.Membership, error) {
	if e.store.Leads() {
		return enroll.Membership(e.store.View(), e.id), nil
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	r, err := others.Announce(ctx, connect.NewRequest(e.announcement()))
	if err != nil {
		return nil, err
	}
	if e.otherLeader() != "" {
		e.isReady()
	}
	return r.Msg.Membership, nil
}

// addresses are those of other engines, the leader's first.
func (e *Engine) addresses() []string {
	var all []string
	add := func(address string) {
		if address != "" && address != e.address && !slices.Contains(all, address) {
			all = append(all, address)
		}
	}
	add(e.otherLeader())
	for _, p := range e.cfg.Folder.Membership().GetEngines() {
		add(p.Address)
	}
	for _, p := range enroll.Engines(e.store.View()) {
		add(p.Address)
	}
	return all
}

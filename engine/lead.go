package engine

import (
	"context"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"orch/engine/api"
	"orch/engine/ca"
	"orch/engine/control"
	"orch/engine/enroll"
	"orch/engine/folder"
	"orch/engine/probe"
	"orch/engine/state"
)

// lead runs the leader's parts whenever this engine leads.
func (e *Engine) lead(ctx context.Context) {
	stop := func() {}
	defer func() { stop() }()
	for {
		select {
		case <-ctx.Done():
			return
		case leading := <-e.store.Leading():
			e.serving.Store(false)
			stop()
			stop = func() {}
			if leading {
				stop = e.leader(ctx)
			}
		}
	}
}

const tryAgain = 500 * time.Millisecond

// leader starts the leader's parts; the function it returns ends them.
func (e *Engine) leader(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var parts sync.WaitGroup
	keep := func(what string, run func(context.Context) error) {
		parts.Go(func() {
			for ctx.Err() == nil {
				if err := run(ctx); err != nil && ctx.Err() == nil {
					e.cfg.Logger.Warn(what+" stopped; it begins again", "error", err)
				}
				select {
				case <-ctx.Done():
				case <-time.After(tryAgain):
				}
			}
		})
	}
	e.heard.reset()
	keep("the sessions' dispatcher", e.dispatcher.Run)
	keep("the engines' membership", e.members)
	keep("the control loop", func(ctx context.Context) error {
		if err := e.found(ctx); err != nil {
			return err
		}
		loop := control.Loop{
			Store: e.store, Watch: func() control.Watcher { return e.store.Watch() }, Logger: e.cfg.Logger,
			Strategy: e.cfg.Strategy, Follower: e.dispatcher,
			Asker: &probe.Asker{Exec: e.execute, Traffic: e.traffic},
			Ready: func() {
				e.serving.Store(ctx.Err() == nil)
				e.isReady()
			},
		}
		return loop.Run(ctx)
	})
	return func() {
		cancel()
		parts.Wait()
		e.serving.Store(false)
	}
}

func (e *Engine) isReady() { e.readyOnce.Do(func() { close(e.ready) }) }

// found makes the cluster's row, and this engine's, if there are none yet.
func (e *Engine) found(ctx context.Context) error {
	if err := e.store.Barrier(ctx); err != nil {
		return err
	}
	if err := e.alone(ctx); err != nil {
		return err
	}
	keys, err := e.cfg.Folder.Keys()
	if err != nil || keys.Authority == nil {
		return err
	}
	now := timestamppb.Now()
	m := e.cfg.Folder.Membership()
	if e.store.View().Cluster() == nil {
		trust, err := enroll.Found(keys.Certificate, keys.Authority, e.key)
		if err != nil {
			return err
		}
		_, err = e.store.Propose(ctx, &api.Command{Time: now, Kind: &api.Command_PutCluster{PutCluster: &api.Cluster{
			Id: m.ClusterId, Name: m.ClusterName, Version: state.CommandSet, CreatedAt: now, Trust: trust,
		}}})
		if err != nil {
			return err
		}
	}
	if e.store.View().Node(e.id) == nil {
		n, err := enroll.Founder(e.id, m.Name, e.address, keys.Node.Public())
		if err != nil {
			return err
		}
		_, err = e.store.Propose(ctx, &api.Command{Time: now, Kind: &api.Command_PutNode{PutNode: n}})
		if err != nil {
			return err
		}
	}
	return e.cfg.Folder.UpdateKeys(func(k *folder.Keys) { k.Authority, k.Certificate = nil, nil })
}

// alone removes the other engines of a cluster that was recovered from this
// one.
func (e *Engine) alone(ctx context.Context) error {
	settings, err := e.cfg.Folder.Settings()
	if err != nil || !settings.Alone {
		return err
	}
	for _, n := range e.store.View().Nodes() {
		if n.Role != string(ca.Engine) || n.Id == e.id {
			continue
		}
		_, err := e.store.Propose(ctx, &api.Command{Time: timestamppb.Now(), Kind: &api.Command_RemoveNode{RemoveNode: &api.RemoveNode{Id: n.Id}}})
		if err != nil {
			return err
		}
	}
	settings.Alone = false
	return e.cfg.Folder.SetSettings(settings)
}

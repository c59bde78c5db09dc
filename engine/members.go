package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"orch/engine/api"
	"orch/engine/api/apiconnect"
	"orch/engine/ca"
	"orch/engine/enroll"
	"orch/engine/folder"
	"orch/engine/member"
	"orch/engine/reach"
	"orch/engine/state"
)

// heard is what engines said of themselves last, in the leader's memory.
type heard struct {
	mu    sync.Mutex
	all   map[string]*announcement
	since time.Time // this engine leads
}

type announcement struct {
	*api.AnnounceRequest
	at time.Time
}

func (h *heard) reset() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all, h.since = nil, time.Now()
}

// fresh says that an engine was heard of lately, or that there was no time
// for it since this engine leads.
func (h *heard) fresh(id string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if a := h.all[id]; a != nil {
		return time.Since(a.at) < member.Fresh
	}
	return time.Since(h.since) < member.Fresh
}

func (h *heard) of(id string) *announcement {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.all[id]
}

// young says that this engine leads for less time than all need to announce
// themselves.
func (h *heard) young() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return time.Since(h.since) < 2*announceEvery
}

// members is what package member wants of it.
func (h *heard) members() map[string]member.Heard {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := map[string]member.Heard{}
	for id, a := range h.all {
		out[id] = member.Heard{At: a.at, Address: a.Address, Applied: a.Applied}
	}
	return out
}

// announced remembers what an engine said of itself.
func (e *Engine) announced(a *api.AnnounceRequest) {
	e.heard.mu.Lock()
	defer e.heard.mu.Unlock()
	if e.heard.all == nil {
		e.heard.all = map[string]*announcement{}
	}
	e.heard.all[a.NodeId] = &announcement{a, time.Now()}
}

func (e *Engine) servers() []member.Server {
	var all []member.Server
	for _, m := range e.store.Members() {
		all = append(all, member.Server{ID: m.ID, Address: m.Address, Voter: m.Voter})
	}
	return all
}

// mayLeave gives the engines a moment to be heard of by a new leader.
func (e *Engine) mayLeave(node string) error {
	tick := time.NewTicker(membersEvery / 4)
	defer tick.Stop()
	for {
		err := member.Removal(node, e.servers(), e.heard.members(), time.Now())
		if err == nil || !e.heard.young() {
			return err
		}
		<-tick.C
	}
}

// gone waits until an engine is none of raft's servers any more.
func (e *Engine) gone(ctx context.Context, node string) error {
	ctx, cancel := context.WithTimeout(ctx, goneWithin)
	defer cancel()
	tick := time.NewTicker(membersEvery / 4)
	defer tick.Stop()
	for slices.ContainsFunc(e.servers(), func(s member.Server) bool { return s.ID == node }) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}

const goneWithin = 10 * time.Second

// Retire returns once this engine, which is to be none any more, has no vote
// left: the others may need it to agree on that. It gives up with ctx.
func (e *Engine) Retire(ctx context.Context) {
	e.HandOver()
	tick := time.NewTicker(membersEvery / 4)
	defer tick.Stop()
	for slices.ContainsFunc(e.servers(), func(s member.Server) bool { return s.ID == e.id }) {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// MayLeave implements operator.Engines.
func (e *Engine) MayLeave(node string) error { return e.mayLeave(node) }

func (e *Engine) whyNoLeader() string {
	return member.Reach(e.servers(), e.heard.members(), time.Now())
}

// membersEvery often the leader looks whether the engines are those that are
// wanted.
const membersEvery = 100 * time.Millisecond

// members brings raft's servers to the engines that are wanted, one step at
// a time, and a rotation of the CA on its way.
func (e *Engine) members(ctx context.Context) error {
	tick := time.NewTicker(membersEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		e.announced(e.announcement())
		if !e.serving.Load() {
			continue
		}
		v := e.store.View()
		if step := member.Next(v.Nodes(), e.servers(), e.heard.members(), e.store.Applied(), time.Now()); step != nil {
			if err := e.take(ctx, step); err != nil {
				return err
			}
		}
		if err := errors.Join(e.desk.Step(ctx), e.raise(ctx, v)); err != nil {
			return err
		}
	}
}

func (e *Engine) take(ctx context.Context, s *member.Step) error {
	e.cfg.Logger.Info("the engines change", "action", s.Action, "node", s.ID, "address", s.Address)
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var err error
	switch {
	case s.Action == member.Remove && s.ID == e.id:
		err = e.store.Transfer(ctx) // the next leader goes on
	case s.Action == member.Remove:
		err = e.store.Remove(ctx, s.ID)
	case s.Action == member.Promote, s.Action == member.Move && s.Voter:
		err = e.store.AddVoter(ctx, s.ID, s.Address)
	default:
		err = e.store.AddNonvoter(ctx, s.ID, s.Address)
	}
	if err != nil {
		return fmt.Errorf("cannot %s engine %s: %w", s.Action, s.ID, err)
	}
	return nil
}

// raise lets the cluster use the newest commands that every engine knows.
func (e *Engine) raise(ctx context.Context, v state.View) error {
	set := uint32(state.CommandSet)
	for _, s := range e.servers() {
		a := e.heard.of(s.ID)
		if a == nil {
			return nil
		}
		set = min(set, a.CommandSet)
	}
	if c := v.Cluster(); c == nil || c.Version >= set {
		return nil
	}
	_, err := e.store.Propose(ctx, &api.Command{Time: timestamppb.Now(), Version: 1, Kind: &api.Command_SetCluster{SetCluster: &api.SetCluster{Version: set}}})
	return err
}

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

// Engines implements operator.Engines: the engines as the leader knows them.
func (e *Engine) Engines() []*api.EngineStatus {
	v := e.store.View()
	leader, _ := e.store.Leader()
	byID := map[string]*api.EngineStatus{}
	var all []*api.EngineStatus
	for _, n := range v.Nodes() {
		if n.Role == string(ca.Engine) {
			s := &api.EngineStatus{NodeId: n.Id, Name: n.Name, Address: n.EngineAddress, State: "joining", Reason: "it has not announced itself yet"}
			byID[n.Id] = s
			all = append(all, s)
		}
	}
	for _, m := range e.store.Members() {
		s := byID[m.ID]
		if s == nil {
			s = &api.EngineStatus{NodeId: m.ID, Address: m.Address, Reason: "it is leaving"}
			all = append(all, s)
		}
		if m.Voter {
			s.State, s.Reason = "voter", ""
		} else {
			s.Reason = "it takes the log over"
		}
		if m.ID == leader {
			s.State = "leader"
		}
	}
	slices.SortFunc(all, func(a, b *api.EngineStatus) int { return cmp.Compare(a.Name, b.Name) })
	if !e.serving.Load() {
		return all
	}
	for _, s := range all {
		a := e.heard.of(s.NodeId)
		if a != nil {
			s.Applied, s.Version, s.Heard = a.Applied, a.Version, timestamppb.New(a.at)
		}
		if s.State == "voter" && !e.heard.fresh(s.NodeId) {
			s.State, s.Reason = "unreachable", "it has not been heard of"
		}
	}
	return all
}

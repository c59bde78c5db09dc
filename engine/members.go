package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"orch/engine/api"
	"orch/engine/ca"
	"orch/engine/member"
	"orch/engine/state"
)

func (e *Engine) servers() []member.Server {
	var all []member.Server
	for _, m := range e.store.Members() {
		all = append(all, member.Server{ID: m.ID, Address: m.Address, Voter: m.Voter})
	}
	return all
}

// MayLeave is an error if the other engines couldn't go on without a node. A
// new leader gives them a moment to be heard of.
func (e *Engine) MayLeave(node string) (err error) {
	_ = until(context.Background(), func() bool {
		err = member.Removal(node, e.servers(), e.heard.members(), time.Now())
		return err == nil || !e.heard.young()
	})
	return err
}

// goneWithin an engine that was removed is no voter any more.
const goneWithin = 10 * time.Second

// gone waits until an engine is none of raft's servers any more.
func (e *Engine) gone(ctx context.Context, node string) error {
	ctx, cancel := context.WithTimeout(ctx, goneWithin)
	defer cancel()
	return until(ctx, func() bool { return !e.serves(node) })
}

// forgottenAfter without a leader a demoted engine was let go without being
// told: who leads speaks to its servers far more often.
const forgottenAfter = 5 * time.Second

// Retire returns once this engine, which is to be none any more, has no vote
// left: the others may need it to agree on that. It gives up with ctx.
func (e *Engine) Retire(ctx context.Context) {
	e.HandOver()
	heard := time.Now()
	_ = until(ctx, func() bool {
		if id, _ := e.store.Leader(); id != "" {
			heard = time.Now()
		}
		return !e.serves(e.id) || time.Since(heard) > forgottenAfter
	})
}

// serves says that an engine is one of raft's servers.
func (e *Engine) serves(node string) bool {
	return slices.ContainsFunc(e.servers(), func(s member.Server) bool { return s.ID == node })
}

// until asks often whether something is so, as long as ctx lasts.
func until(ctx context.Context, is func() bool) error {
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}

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

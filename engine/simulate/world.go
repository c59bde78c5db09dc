package simulate

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"orch/engine/api"
	"orch/engine/control"
	"orch/engine/rollout"
	"orch/engine/schedule"
	"orch/engine/spec"
	"orch/engine/state"
)

// World is a cluster of one leader and fake agents.
type World struct {
	State    *state.State
	Strategy rollout.Strategy
	Prober   rollout.Prober
	Now      time.Time
	// Choose says which services a pass looks at; nil: all of them.
	Choose func(state.View, time.Time) []string
	// NextWake says, beside Choose, when a pass is due at the latest.
	NextWake func() time.Time
	// Planned sees each pass before its changes are applied.
	Planned func(control.Pass)
	// Committed sees every entry; an error stops the run.
	Committed func(state.View, []state.Delta) error
	// JobsEnd lets tasks of jobs end with exit code 0 once they run.
	JobsEnd bool
	// Fate says how a task goes by itself; nil: well.
	Fate func(*api.Task) Fate
	// Followed says how far the nodes follow the endpoint table; nil: at once.
	Followed func() state.Followed
	// Entries counts what was committed.
	Entries int

	index  uint64
	agents map[string]*agent // by node id
	holds  map[string]api.TaskState
	broken map[string]broken
	wake   time.Time
}

// New makes a cluster without nodes at noon of a Tuesday.
func New() *World {
	w := empty(time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC))
	if _, err := w.Propose(&api.Command{Kind: &api.Command_PutCluster{PutCluster: &api.Cluster{Id: "c"}}}); err != nil {
		panic(err)
	}
	return w
}

func empty(now time.Time) *World {
	return &World{State: state.New(), Now: now, agents: map[string]*agent{}, holds: map[string]api.TaskState{}, broken: map[string]broken{}}
}

// Propose commits a command at once.
func (w *World) Propose(c *api.Command) (state.Result, error) {
	if c.Time == nil {
		c.Time = timestamppb.New(w.Now)
	}
	if c.Version == 0 {
		c.Version = state.CommandSet
	}
	w.index++
	w.Entries++
	r := w.State.Apply(w.index, c)
	if r.Err != nil {
		return r, r.Err
	}
	if w.Committed != nil {
		return r, w.Committed(w.State.View(), r.Deltas)
	}
	return r, nil
}

// most passes at one instant; more mean that it never comes to rest.
const mostPasses = 3000

// errRestless says that the leader never came to rest.
var errRestless = fmt.Errorf("not at rest after %d passes", mostPasses)

// Settle lets the leader and the agents work until neither has anything to
// do at this instant.
func (w *World) Settle() error {
	for range mostPasses {
		worked, err := w.pass()
		if err != nil {
			return err
		}
		for _, id := range sortedKeys(w.agents) {
			did, err := w.agents[id].step(w)
			if err != nil {
				return err
			}
			worked = worked || did
		}
		if !worked {
			return nil
		}
	}
	return errRestless
}

// Plan is what the leader would do now with all services.
func (w *World) Plan() control.Pass {
	return control.Plan(w.State.View(), w.services(), w.asks(), w.Now)
}

func (w *World) asks() control.World {
	followed := state.Everywhere
	if w.Followed != nil {
		followed = w.Followed()
	}
	return control.World{World: rollout.World{Strategy: w.Strategy, Prober: w.Prober}, Followed: followed}
}

func (w *World) services() []string {
	var ids []string
	for _, s := range w.State.View().Services() {
		ids = append(ids, s.Id)
	}
	return ids
}

func (w *World) pass() (worked bool, err error) {
	v := w.State.View()
	ids := w.services()
	if w.Choose != nil {
		ids = w.Choose(v, w.Now)
	}
	p := control.Plan(v, ids, w.asks(), w.Now)
	if w.Planned != nil {
		w.Planned(p)
	}
	w.wake = time.Time{}
	for _, at := range p.Wake {
		if w.wake.IsZero() || at.Before(w.wake) {
			w.wake = at
		}
	}
	if w.NextWake != nil {
		w.wake = w.NextWake()
	}
	for _, c := range p.Changes {
		if _, err := w.Propose(&api.Command{Kind: &api.Command_Changes{Changes: c}}); err != nil {
			return true, err
		}
	}
	return len(p.Changes) > 0, nil
}

// Advance moves the clock by d, stopping wherever the leader or an agent
// asked to be woken.
func (w *World) Advance(d time.Duration) error {
	end := w.Now.Add(d)
	for {
		if err := w.Settle(); err != nil {
			return err
		}
		next := end
		if at := w.nextWake(); !at.IsZero() && at.Before(next) {
			next = at
		}
		if !w.Now.Before(end) {
			return nil
		}
		w.Now = next
	}
}

// nextWake is when somebody has something to do by time alone; zero: never.
func (w *World) nextWake() (next time.Time) {
	soon := func(at time.Time) {
		if at.After(w.Now) && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	soon(w.wake)
	for _, a := range w.agents {
		soon(a.wake(w))
	}
	return next
}

// KillLeader drops all that isn't in the log: a new engine restores the old
// one's snapshot and goes on.
func (w *World) KillLeader() error {
	var snapshot bytes.Buffer
	if err := w.State.View().WriteSnapshot(&snapshot); err != nil {
		return err
	}
	w.State = state.New()
	return w.State.Restore(&snapshot)
}

// NodeUp makes a node, or brings it back. Zero fields get defaults; one whose
// id was removed comes with another id under its old name.
func (w *World) NodeUp(n *api.Node) error {
	n = proto.CloneOf(n)
	if n.Name == "" {
		n.Name = n.Id
	}
	for slices.ContainsFunc(w.State.View().Cluster().GetRemoved(), func(r *api.RemovedNode) bool { return r.Id == n.Id }) {
		n.Id += "'"
	}
	if old := w.State.View().Node(n.Id); old != nil {
		w.agents[n.Id].down = false
		_, err := w.Propose(&api.Command{Kind: &api.Command_SetNode{SetNode: &api.SetNode{Id: n.Id, Status: "up", StatusReason: "its agent came back"}}})
		return err
	}
	n.Status, n.StatusSince = "up", timestamppb.New(w.Now)
	if n.Availability == "" {
		n.Availability = "active"
	}
	if n.Role == "" {
		n.Role = "agent"
	}
	if n.Facts == nil {
		n.Facts = &api.NodeFacts{CpusMilli: 8000, Memory: 16 << 30}
	}
	if n.Facts.Runtimes == nil {
		n.Facts.Runtimes = []*api.RuntimeFacts{{Name: "docker"}, {Name: "process"}}
	}
	w.agents[n.Id] = &agent{node: n.Id, local: map[string]*api.TaskStatus{}}
	_, err := w.Propose(&api.Command{Kind: &api.Command_PutNode{PutNode: n}})
	return err
}

// NodeDown cuts a node off; what runs there runs on.
func (w *World) NodeDown(name string) error {
	id := w.node(name)
	w.agents[id].down = true
	_, err := w.Propose(&api.Command{Kind: &api.Command_SetNode{SetNode: &api.SetNode{Id: id, Status: "down", StatusReason: "its heartbeats ended"}}})
	return err
}

// NodeRemove takes a node out of the cluster.
func (w *World) NodeRemove(name string) error {
	id := w.node(name)
	_, err := w.Propose(&api.Command{Kind: &api.Command_RemoveNode{RemoveNode: &api.RemoveNode{Id: id}}})
	delete(w.agents, id)
	return err
}

// NodeSet changes a node as operators do.
func (w *World) NodeSet(name string, s *api.SetNode) error {
	s.Id = w.node(name)
	_, err := w.Propose(&api.Command{Kind: &api.Command_SetNode{SetNode: s}})
	return err
}

// node is the id of the node of that name.
func (w *World) node(name string) string {
	for _, n := range w.State.View().Nodes() {
		if n.Name == name {
			return n.Id
		}
	}
	return name
}

// Rebalance wishes what `orch rebalance` would.
func (w *World) Rebalance() ([]*api.Move, error) {
	moves := schedule.Rebalance(w.State.View(), "")
	if len(moves) == 0 {
		return nil, nil
	}
	c := &api.Changes{}
	for _, m := range moves {
		c.Change = append(c.Change, &api.TaskChange{Id: m.TaskId, Move: m.Reason})
	}
	_, err := w.Propose(&api.Command{Kind: &api.Command_Changes{Changes: c}})
	return moves, err
}

// Source is a stack with what it was evaluated from.
type Source struct {
	Spec       *api.StackSpec
	Bundle     *api.Bundle // that holds its strategies; nil: it has the library's
	ParamsJSON string
}

// Apply commits a stack as its next release.
func (w *World) Apply(s *api.StackSpec, cause string) (state.Result, error) {
	return w.ApplySource(Source{Spec: s}, cause)
}

// ApplySource commits a stack with its bundle as its next release.
func (w *World) ApplySource(from Source, cause string) (state.Result, error) {
	s := proto.CloneOf(from.Spec)
	spec.Normalize(s)
	if err := spec.Validate(s); err != nil {
		return state.Result{Err: err}, err
	}
	versions := map[string]string{}
	for _, svc := range s.Services {
		versions[svc.Name] = spec.Version(svc.Task)
	}
	return w.Propose(&api.Command{Kind: &api.Command_PutRelease{PutRelease: &api.PutRelease{
		Release: &api.Release{Stack: s.Name, Spec: s, Cause: cause, BundleHash: from.Bundle.GetHash(), ParamsJson: from.ParamsJSON},
		Bundle:  from.Bundle, Versions: versions, BaseRelease: w.State.View().Stack(s.Name).GetRelease(),
	}}})
}

// Signal sends `orch rollout SIGNAL SERVICE`.
func (w *World) Signal(service, signal string) error {
	_, err := w.Propose(&api.Command{Kind: &api.Command_SignalRollout{SignalRollout: &api.SignalRollout{ServiceId: service, Signal: signal, By: "ann"}}})
	return err
}

// SetStack stops, starts or removes a stack.
func (w *World) SetStack(name, action string) error {
	_, err := w.Propose(&api.Command{Kind: &api.Command_SetStack{SetStack: &api.SetStack{Name: name, Action: action}}})
	return err
}

// Has says whether the node of that name is in the cluster, and whether it is
// cut off.
func (w *World) Has(name string) (known, down bool) {
	a := w.agents[w.node(name)]
	return a != nil, a != nil && a.down
}

// Nodes counts those in the cluster.
func (w *World) Nodes() int { return len(w.agents) }

// Running counts what really runs of each slot, whatever the engine believes.
func (w *World) Running() map[string]int {
	n := map[string]int{}
	for _, a := range w.agents {
		for id, st := range a.local {
			if st.State >= api.TaskState_TASK_STATE_STARTING && !state.Ended(st.State) {
				n[id[:slices.Index([]byte(id), '#')]]++
			}
		}
	}
	return n
}

func sortedKeys[T any](m map[string]T) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// Duration is d as specs hold it.
func Duration(d time.Duration) *durationpb.Duration { return durationpb.New(d) }

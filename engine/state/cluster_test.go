package state_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"orch/engine/api"
	"orch/engine/state"
)

// at is a command's time, in seconds.
func at(seconds int64) *timestamppb.Timestamp { return &timestamppb.Timestamp{Seconds: seconds} }

// applier applies commands to a state one after the other.
func applier(t *testing.T) (s *state.State, apply func(seconds int64, c *api.Command, refusal string)) {
	s = filled()
	index := uint64(1000)
	return s, func(seconds int64, c *api.Command, refusal string) {
		t.Helper()
		index++
		c.Time, c.Version = at(seconds), state.CommandSet
		var r *state.Refusal
		switch err := s.Apply(index, c).Err; {
		case refusal == "" && err != nil, refusal != "" && (!errors.As(err, &r) || !strings.Contains(r.Text, refusal)):
			t.Fatalf("%v: got %v, want %q", c.Kind, err, refusal)
		}
	}
}

func setCluster(s *api.SetCluster) *api.Command {
	return &api.Command{Kind: &api.Command_SetCluster{SetCluster: s}}
}

func TestClusterByCompareAndSet(t *testing.T) {
	s, apply := applier(t)
	if c := s.View().Cluster(); c.Generation != 1 || string(c.UnlockKey) != "sealed" || c.Trust == nil {
		t.Fatalf("begins with %v", c)
	}
	apply(1, setCluster(&api.SetCluster{Trust: trust("r2")}), "generation 1, not 0")
	apply(1, setCluster(&api.SetCluster{Generation: 1, Trust: trust("r2")}), "")
	apply(1, setCluster(&api.SetCluster{Generation: 1, ClearUnlockKey: true}), "generation 2, not 1")
	apply(1, setCluster(&api.SetCluster{Generation: 2, ClearUnlockKey: true}), "")
	apply(1, setCluster(&api.SetCluster{Generation: 3}), "nothing to change")
	apply(1, setCluster(&api.SetCluster{Generation: 3, Trust: &api.Trust{}}), "needs a current root")
	apply(1, setCluster(&api.SetCluster{Generation: 3, UnlockKey: []byte("x"), ClearUnlockKey: true}), "set or cleared")
	apply(1, setCluster(&api.SetCluster{Version: 7}), "")
	apply(1, setCluster(&api.SetCluster{Version: 6}), "")
	c := s.View().Cluster()
	if c.Generation != 3 || c.Version != 7 || len(c.UnlockKey) > 0 || string(c.Trust.Current.Certificate) != "r2" {
		t.Errorf("came to %v", c)
	}
	apply(1, &api.Command{Kind: &api.Command_PutCluster{PutCluster: &api.Cluster{Id: "c"}}}, `this is cluster "c" already`)
	empty := state.New()
	if err := empty.Apply(1, setCluster(&api.SetCluster{Version: 1})).Err; err == nil || err.Error() != "there is no cluster yet" {
		t.Errorf("without a cluster: %v", err)
	}
}

func TestTokens(t *testing.T) {
	s, apply := applier(t)
	put := func(id, role string, until int64) *api.Command {
		x := &api.JoinToken{Id: id, Role: role, Hash: []byte(id)}
		if until > 0 {
			x.ExpiresAt = at(until)
		}
		return &api.Command{Kind: &api.Command_PutToken{PutToken: x}}
	}
	remove := func(r *api.RemoveTokens) *api.Command {
		return &api.Command{Kind: &api.Command_RemoveTokens{RemoveTokens: r}}
	}
	left := func(want string) {
		t.Helper()
		var ids []string
		for _, x := range s.View().Tokens() {
			ids = append(ids, x.Id)
		}
		if got := strings.Join(ids, " "); got != want {
			t.Fatalf("tokens %q are left, want %q", got, want)
		}
	}
	apply(1, put("", "agent", 9), "needs an id")
	apply(1, put("x", "agent", 0), "needs an id, a hash and an end")
	apply(1, put("x", "admin", 9), `not "admin"`)
	apply(1, put("t", "agent", 9), `a join token "t" already`)
	apply(5, put("e1", "engine", 60), "")
	apply(5, put("e2", "engine", 70), "")
	if x := s.View().Token("e1"); x.CreatedAt.Seconds != 5 {
		t.Errorf("made at %v", x.CreatedAt)
	}
	apply(1, remove(&api.RemoveTokens{}), "which join tokens")
	apply(1, remove(&api.RemoveTokens{Id: "x"}), `no join token "x"`)
	left("e1 e2 t")
	apply(60, remove(&api.RemoveTokens{Expired: true}), "")
	left("e2")
	apply(60, put("a", "agent", 99), "")
	apply(60, put("b", "agent", 99), "")
	apply(60, remove(&api.RemoveTokens{Id: "b"}), "")
	apply(60, remove(&api.RemoveTokens{Role: "engine"}), "")
	left("a")
}

func TestOperators(t *testing.T) {
	s, apply := applier(t)
	put := func(name, role, key string) *api.Command {
		return &api.Command{Kind: &api.Command_PutOperator{PutOperator: &api.Operator{Name: name, Role: role, KeyDigest: key}}}
	}
	remove := func(name string) *api.Command {
		return &api.Command{Kind: &api.Command_RemoveOperator{RemoveOperator: &api.RemoveOperator{Name: name}}}
	}
	apply(1, put("bob", "root", "k"), `not "root"`)
	apply(1, put("bob", "view", ""), "needs a name and a key")
	apply(20, put("bob", "view", "k"), "")
	apply(30, put("bob", "deploy", "k2"), "")
	if o := s.View().Operator("bob"); o.Role != "deploy" || o.KeyDigest != "k2" || o.CreatedAt.Seconds != 20 {
		t.Errorf("bob is %v", o)
	}
	apply(1, remove("eve"), `no operator "eve"`)
	apply(1, remove("ann"), "") // the last admin
	if all := s.View().Operators(); len(all) != 1 || all[0].Name != "bob" {
		t.Errorf("left: %v", all)
	}
}

func TestNodes(t *testing.T) {
	s, apply := applier(t)
	put := func(n *api.Node) *api.Command { return &api.Command{Kind: &api.Command_PutNode{PutNode: n}} }
	set := func(n *api.SetNode) *api.Command { return &api.Command{Kind: &api.Command_SetNode{SetNode: n}} }
	remove := func(id string) *api.Command {
		return &api.Command{Kind: &api.Command_RemoveNode{RemoveNode: &api.RemoveNode{Id: id}}}
	}
	apply(1, put(&api.Node{Id: "b", Name: "b", Role: "agent", KeyDigest: "k"}), "")
	apply(1, put(&api.Node{Id: "b", Name: "b", Role: "agent", KeyDigest: "other"}), "another key")
	apply(2, put(&api.Node{Id: "b", Name: "bee", Role: "agent"}), "")
	if n := s.View().Node("b"); n.KeyDigest != "k" || n.Name != "bee" || n.RoleSince != nil {
		t.Errorf("put again: %v", n)
	}
	apply(3, set(&api.SetNode{Id: "b", Role: "agent"}), "")
	if n := s.View().Node("b"); n.RoleSince != nil {
		t.Errorf("the same role: %v", n)
	}
	apply(4, set(&api.SetNode{Id: "b", Role: "engine", EngineAddress: "b:7", HostKey: "SHA256:x"}), "")
	apply(5, set(&api.SetNode{Id: "b", Role: "engine"}), "")
	if n := s.View().Node("b"); n.Role != "engine" || n.RoleSince.GetSeconds() != 4 || n.EngineAddress != "b:7" || n.HostKey != "SHA256:x" {
		t.Errorf("promoted: %v", n)
	}
	apply(6, put(&api.Node{Id: "b", Name: "b", Role: "agent", KeyDigest: "k"}), "")
	if n := s.View().Node("b"); n.RoleSince.GetSeconds() != 6 {
		t.Errorf("put with another role: %v", n)
	}
	apply(7, set(&api.SetNode{Id: "b", Role: "king"}), `not "king"`)
	apply(7, set(&api.SetNode{Id: "b", Availability: "away"}), `not "away"`)

	day := int64(24 * time.Hour / time.Second)
	apply(0, remove("b"), "")
	apply(1, put(&api.Node{Id: "b", Name: "b", KeyDigest: "k"}), "joins again with a new id")
	apply(1, put(&api.Node{Id: "b2", Name: "b", KeyDigest: "k"}), "")
	apply(9*day, remove("b2"), "")
	if r := s.View().Cluster().Removed; len(r) != 2 || r[0].Id != "b" || r[1].At.Seconds != 9*day {
		t.Errorf("removed: %v", r)
	}
	apply(10*day+1, remove("a"), "")
	if r := s.View().Cluster().Removed; len(r) != 2 || r[0].Id != "b2" || r[1].Id != "a" {
		t.Errorf("removed, the oldest forgotten: %v", r)
	}
}

// TestSets: every kind says to which command set it belongs.
func TestSets(t *testing.T) {
	kinds := (&api.Command{}).ProtoReflect().Descriptor().Oneofs().ByName("kind").Fields()
	for i := range kinds.Len() {
		c := &api.Command{}
		m := c.ProtoReflect()
		m.Set(kinds.Get(i), m.NewField(kinds.Get(i)))
		if set := state.Set(c); set < 1 || set > state.CommandSet {
			t.Errorf("kind %s belongs to set %d; this binary knows %d", kinds.Get(i).Name(), set, state.CommandSet)
		}
	}
	if set := state.Set(&api.Command{}); set <= state.CommandSet {
		t.Errorf("no kind: %d", set)
	}
}

// TestMove: the engine's wish to move a task stays until the task goes.
func TestMove(t *testing.T) {
	s, apply := applier(t)
	change := func(c *api.TaskChange) *api.Command {
		return &api.Command{Kind: &api.Command_Changes{Changes: &api.Changes{Change: []*api.TaskChange{c}}}}
	}
	apply(1, change(&api.TaskChange{Id: "app/web.1#1", Move: "node b has more room"}), "")
	apply(2, change(&api.TaskChange{Id: "app/web.1#1", Wait: &api.Wait{Reason: "x"}}), "")
	apply(3, &api.Command{Kind: &api.Command_Reports{Reports: &api.Reports{Reports: []*api.ReportStatus{{NodeId: "a", Statuses: []*api.TaskStatus{
		{TaskId: "app/web.1#1", State: api.TaskState_TASK_STATE_RUNNING}}}}}}}, "")
	task := s.View().Task("app/web.1#1")
	if task.Move != "node b has more room" {
		t.Errorf("moves for %q", task.Move)
	}
}

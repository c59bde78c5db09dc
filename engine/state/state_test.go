package state_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"orch/engine/api"
	"orch/engine/script"
	"orch/engine/spec"
	"orch/engine/state"
)

func snapshot(t interface{ Fatal(...any) }, s *state.State) []byte {
	var b bytes.Buffer
	if err := s.View().WriteSnapshot(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// command draws a command: mostly nonsense that hits rows which exist.
func command(t *rapid.T) *api.Command {
	c := &api.Command{Time: &timestamppb.Timestamp{Seconds: rapid.Int64Range(0, 99).Draw(t, "time")}, Version: rapid.Uint32Range(0, 2).Draw(t, "set")}
	kinds := c.ProtoReflect().Descriptor().Oneofs().ByName("kind").Fields()
	f := kinds.Get(rapid.IntRange(0, kinds.Len()-1).Draw(t, "kind"))
	m := c.ProtoReflect().Mutable(f).Message().Interface()
	script.Random(t, m, 4)
	if p, ok := m.(*api.PutRelease); ok && rapid.Bool().Draw(t, "whole") {
		p.Release = &api.Release{Stack: "app", Spec: &api.StackSpec{Name: "app"}}
		p.Versions = map[string]string{}
		for _, name := range []string{"web", "db"} {
			svc := &api.ServiceSpec{}
			script.Random(t, svc, 3)
			svc.Name = name
			p.Release.Spec.Services = append(p.Release.Spec.Services, svc)
			p.Versions[name] = rapid.SampledFrom([]string{"v1", "v2"}).Draw(t, "version")
		}
	}
	return c
}

// fix makes a release apply: its base is the stack's newest.
func fix(s *state.State, c *api.Command) {
	if p := c.GetPutRelease(); p != nil {
		p.BaseRelease = s.View().Stack(p.GetRelease().GetStack()).GetRelease()
	}
}

// TestReplay: applying commands, and applying their tail to a snapshot of
// what their head came to, end in equal states, errors included. Whatever a
// command holds, Apply doesn't panic, and one that is refused changes nothing.
func TestReplay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 30).Draw(t, "commands")
		at := rapid.IntRange(0, n).Draw(t, "snapshot at")
		a, b := state.New(), state.New()
		for i := range n {
			if i == at {
				if err := b.Restore(bytes.NewReader(snapshot(t, a))); err != nil {
					t.Fatal(err)
				}
			}
			c := command(t)
			fix(a, c)
			before := snapshot(t, a)
			wire, err := proto.Marshal(c)
			if err != nil {
				t.Fatal(err)
			}
			r := a.Apply(uint64(i+1), c)
			if r.Err != nil && !bytes.Equal(rows(before), rows(snapshot(t, a))) {
				t.Fatalf("refused with %q, and changed something", r.Err)
			}
			if i >= at {
				again := &api.Command{}
				if err := proto.Unmarshal(wire, again); err != nil {
					t.Fatal(err)
				}
				if other := b.Apply(uint64(i+1), again); errText(other.Err) != errText(r.Err) || other.Release != r.Release || len(other.Deltas) != len(r.Deltas) {
					t.Fatalf("one engine says %v, another %v", r.Err, other.Err)
				}
			}
		}
		if at < n && !bytes.Equal(snapshot(t, a), snapshot(t, b)) {
			t.Fatal("the states differ")
		}
	})
}

// rows is a snapshot without its header's index and its checksum.
func rows(snapshot []byte) []byte {
	header := int(snapshot[8]) + 9
	return snapshot[header : len(snapshot)-4]
}

// TestRowsAreImmutable: rows handed out earlier never change.
func TestRowsAreImmutable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := state.New()
		type kept struct{ row, copy proto.Message }
		var all []kept
		for i := range rapid.IntRange(1, 20).Draw(t, "commands") {
			c := command(t)
			fix(s, c)
			for _, d := range s.Apply(uint64(i+1), c).Deltas {
				if m, ok := d.After.(proto.Message); ok {
					all = append(all, kept{m, proto.Clone(m)})
				}
			}
		}
		for _, k := range all {
			if !proto.Equal(k.row, k.copy) {
				t.Fatalf("changed after it was handed out: %v", k.row)
			}
		}
	})
}

func FuzzApply(f *testing.F) {
	for _, c := range commands() {
		b, _ := proto.Marshal(c)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c := &api.Command{}
		if proto.Unmarshal(data, c) != nil {
			return
		}
		a, b := filled(), filled()
		x, y := a.Apply(1000, c), b.Apply(1000, proto.CloneOf(c))
		if errText(x.Err) != errText(y.Err) || !bytes.Equal(snapshot(t, a), snapshot(t, b)) {
			t.Fatalf("not deterministic: %v, %v", x.Err, y.Err)
		}
		if err := state.New().Restore(bytes.NewReader(snapshot(t, a))); err != nil {
			t.Fatalf("its snapshot can't be restored: %v", err)
		}
	})
}

func FuzzRestore(f *testing.F) {
	whole := snapshot(f, filled())
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add([]byte("orchsnap"))
	f.Add(append([]byte("orchsnap"), 0xff, 0xff, 0xff, 0xff, 0x07))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := filled()
		before := snapshot(t, s)
		if err := s.Restore(bytes.NewReader(data)); err != nil && !bytes.Equal(before, snapshot(t, s)) {
			t.Fatalf("refused (%v), and changed the state", err)
		}
	})
}

// TestDamage: a snapshot with any byte changed or cut off is refused.
func TestDamage(t *testing.T) {
	whole := snapshot(t, filled())
	for i := range whole {
		damaged := bytes.Clone(whole)
		damaged[i] ^= 0x40
		if err := state.New().Restore(bytes.NewReader(damaged)); err == nil {
			t.Fatalf("byte %d may be changed", i)
		}
		if err := state.New().Restore(bytes.NewReader(whole[:i])); err == nil {
			t.Fatalf("may end after %d bytes", i)
		}
	}
	if err := state.New().Restore(bytes.NewReader(whole)); err != nil {
		t.Fatal(err)
	}
}

// commands make a small cluster with a service in a rollout.
func commands() []*api.Command {
	release := func(base uint64, image, version string) *api.Command {
		svc := &api.ServiceSpec{Name: "web", Mode: "replicated", Replicas: 2, Task: &api.TaskSpec{Runtime: "docker", Image: image, Env: map[string]string{"A": "1", "B": "2"},
			Secrets: []*api.FileRef{{Name: "s"}}}}
		return &api.Command{Kind: &api.Command_PutRelease{PutRelease: &api.PutRelease{
			Release:     &api.Release{Stack: "app", BundleHash: image, Spec: &api.StackSpec{Name: "app", Services: []*api.ServiceSpec{svc}}},
			Bundle:      &api.Bundle{Hash: image},
			Versions:    map[string]string{"web": version},
			Secrets:     []*api.SecretValue{{Stack: "app", Name: "s", Digest: version, Sealed: []byte{1}}},
			BaseRelease: base,
		}}}
	}
	slot := &api.Slot{Id: "app/web.1", ServiceId: "app/web", Key: "1", Version: "v1"}
	all := []*api.Command{
		{Kind: &api.Command_PutCluster{PutCluster: &api.Cluster{Id: "c"}}},
		{Kind: &api.Command_PutNode{PutNode: &api.Node{Id: "a", Name: "a", Labels: map[string]string{"x": "1", "y": "2"}}}},
		release(0, "one", "v1"),
		{Kind: &api.Command_Changes{Changes: &api.Changes{PutSlots: []*api.Slot{slot}, Create: []*api.Task{
			{Id: "app/web.1#1", ServiceId: "app/web", SlotId: "app/web.1", Attempt: 1, Version: "v1", NodeId: "a",
				Status: &api.TaskStatus{TaskId: "app/web.1#1", State: api.TaskState_TASK_STATE_ASSIGNED}}}}}},
		{Kind: &api.Command_Reports{Reports: &api.Reports{Reports: []*api.ReportStatus{{NodeId: "a", Statuses: []*api.TaskStatus{
			{TaskId: "app/web.1#1", State: api.TaskState_TASK_STATE_RUNNING, Ready: true}}}}}}},
		release(1, "two", "v2"),
		{Kind: &api.Command_Changes{Changes: &api.Changes{Rollouts: []*api.RolloutAdvance{{Id: "app/web~1", Begin: &api.Op{Kind: "replace", Slots: []string{"app/web.1"}}}}}}},
		{Kind: &api.Command_SetCluster{SetCluster: &api.SetCluster{Trust: trust("r1"), UnlockKey: []byte("sealed"), Version: 1}}},
		{Kind: &api.Command_PutToken{PutToken: &api.JoinToken{Id: "t", Role: "agent", Hash: []byte{1}, ExpiresAt: &timestamppb.Timestamp{Seconds: 50}}}},
		{Kind: &api.Command_PutOperator{PutOperator: &api.Operator{Name: "ann", Role: "admin", KeyDigest: "k"}}},
	}
	for i, c := range all {
		c.Time, c.Version = &timestamppb.Timestamp{Seconds: int64(i)}, state.CommandSet
	}
	return all
}

func trust(root string) *api.Trust {
	return &api.Trust{Current: &api.Root{Certificate: []byte(root), Key: []byte("sealed")}}
}

func filled() *state.State {
	s := state.New()
	for i, c := range commands() {
		if r := s.Apply(uint64(i+1), c); r.Err != nil {
			panic(fmt.Sprintf("command %d: %v", i, r.Err))
		}
	}
	return s
}

func TestRefusals(t *testing.T) {
	stale := commands()[2]
	for name, c := range map[string]struct {
		command *api.Command
		kind    state.RefusalKind
		text    string
	}{
		"stale release":  {stale, state.Stale, `stack "app" is at release 2 now, not 0: plan again`},
		"unknown":        {&api.Command{}, state.Invalid, "unknown command <nil>"},
		"other cluster":  {&api.Command{Kind: &api.Command_PutCluster{PutCluster: &api.Cluster{Id: "d"}}}, state.Stale, `this is cluster "c" already`},
		"node name":      {&api.Command{Kind: &api.Command_PutNode{PutNode: &api.Node{Id: "b", Name: "a"}}}, state.InUse, `node name "a" is taken by node a`},
		"no node":        {&api.Command{Kind: &api.Command_RemoveNode{RemoveNode: &api.RemoveNode{Id: "z"}}}, state.NotFound, `no node "z"`},
		"secret in use":  {&api.Command{Kind: &api.Command_RemoveSecret{RemoveSecret: &api.RemoveSecret{Id: "app/s"}}}, state.InUse, `secret "s" is in use by service "app/web"`},
		"bad signal":     {&api.Command{Kind: &api.Command_SignalRollout{SignalRollout: &api.SignalRollout{ServiceId: "app/web", Signal: "resume"}}}, state.Invalid, `cannot resume the rollout of "app/web": it is under way`},
		"bad action":     {&api.Command{Kind: &api.Command_SetStack{SetStack: &api.SetStack{Name: "app", Action: "x"}}}, state.Invalid, `a stack can be stopped, started or removed, not "x"`},
		"no changes":     {&api.Command{Kind: &api.Command_Changes{}}, state.Invalid, "there are no changes"},
		"nothing at all": {&api.Command{Kind: &api.Command_PutRelease{}}, state.Invalid, "a release needs a stack and its spec"},
	} {
		err := filled().Apply(1000, c.command).Err
		var r *state.Refusal
		if !errors.As(err, &r) || r.Kind != c.kind || r.Text != c.text {
			t.Errorf("%s: got %v", name, err)
		}
	}
	s := state.New()
	if r := s.Apply(7, &api.Command{Version: state.CommandSet + 1}); r.Err == nil || s.View().Index() != 7 {
		t.Errorf("a newer command set: %v", r.Err)
	}
	if r := s.Apply(8, nil); r.Err == nil {
		t.Error("a nil command is taken")
	}
}

// TestStatesOnlyAdvance: reports that are late, of other nodes' tasks or of
// ended ones change nothing.
func TestStatesOnlyAdvance(t *testing.T) {
	for name, r := range map[string]*api.ReportStatus{
		"late":       {NodeId: "a", Statuses: []*api.TaskStatus{{TaskId: "app/web.1#1", State: api.TaskState_TASK_STATE_STARTING}}},
		"other node": {NodeId: "b", Statuses: []*api.TaskStatus{{TaskId: "app/web.1#1", State: api.TaskState_TASK_STATE_FAILED}}},
		"unknown":    {NodeId: "a", Statuses: []*api.TaskStatus{{TaskId: "app/web.9#9", State: api.TaskState_TASK_STATE_FAILED}}},
	} {
		s := filled()
		before := rows(snapshot(t, s))
		s.Apply(1000, &api.Command{Kind: &api.Command_Reports{Reports: &api.Reports{Reports: []*api.ReportStatus{r}}}})
		if !bytes.Equal(before, rows(snapshot(t, s))) {
			t.Errorf("a report that is %s is taken", name)
		}
	}
}

func BenchmarkApply2000Tasks(b *testing.B) {
	s := state.New()
	svc := &api.ServiceSpec{Name: "web", Mode: "replicated", Replicas: 2000, Task: &api.TaskSpec{Image: "one"}}
	s.Apply(1, &api.Command{Version: 1, Kind: &api.Command_PutRelease{PutRelease: &api.PutRelease{
		Release: &api.Release{Stack: "app", Spec: &api.StackSpec{Name: "app", Services: []*api.ServiceSpec{svc}}}, Versions: map[string]string{"web": spec.Version(svc.Task)}}}})
	index := uint64(1)
	for b.Loop() {
		index++
		c := &api.Changes{}
		for i := range 2000 {
			slot := fmt.Sprintf("app/web.%d-%d", index, i)
			c.PutSlots = append(c.PutSlots, &api.Slot{Id: slot, ServiceId: "app/web"})
			c.Create = append(c.Create, &api.Task{Id: slot + "#1", SlotId: slot, ServiceId: "app/web", NodeId: "a", Attempt: 1, Status: &api.TaskStatus{}})
		}
		s.Apply(index, &api.Command{Version: 1, Kind: &api.Command_Changes{Changes: c}})
	}
	b.ReportMetric(2000*float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
}

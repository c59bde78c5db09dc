package member_test

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"orch/engine/api"
	"orch/engine/member"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func engine(id string) *api.Node { return &api.Node{Id: id, Role: "engine"} }
func agent(id string) *api.Node  { return &api.Node{Id: id, Role: "agent"} }

func voter(id string) member.Server { return member.Server{ID: id, Address: id + ":1", Voter: true} }

func heard(ids ...string) map[string]member.Heard {
	all := map[string]member.Heard{}
	for _, id := range ids {
		all[id] = member.Heard{At: now, Address: id + ":1", Applied: 1000}
	}
	return all
}

func TestNext(t *testing.T) {
	late := heard("a", "b")
	late["b"] = member.Heard{At: now.Add(-member.Fresh), Address: "b:1", Applied: 1000}
	behind := heard("a", "b")
	behind["b"] = member.Heard{At: now, Address: "b:1", Applied: 10}
	moved := heard("a", "b")
	moved["b"] = member.Heard{At: now, Address: "b:2", Applied: 1000}
	joining := []member.Server{voter("a"), {ID: "b", Address: "b:1"}}
	both := []*api.Node{engine("a"), engine("b")}
	for name, tc := range map[string]struct {
		nodes   []*api.Node
		servers []member.Server
		heard   map[string]member.Heard
		want    *member.Step
	}{
		"nothing to do":                  {both, []member.Server{voter("a"), voter("b")}, heard("a", "b"), nil},
		"a new one is added":             {both, []member.Server{voter("a")}, heard("a", "b"), &member.Step{Action: member.Add, ID: "b", Address: "b:1"}},
		"but not before it is there":     {both, []member.Server{voter("a")}, heard("a"), nil},
		"or when it is gone again":       {both, []member.Server{voter("a")}, late, nil},
		"it votes once it has caught up": {both, joining, heard("a", "b"), &member.Step{Action: member.Promote, ID: "b", Address: "b:1", Voter: true}},
		"and not before":                 {both, joining, behind, nil},
		"a demoted one goes":             {[]*api.Node{engine("a"), agent("b")}, []member.Server{voter("a"), voter("b")}, heard("a", "b"), &member.Step{Action: member.Remove, ID: "b"}},
		"a removed one, too":             {[]*api.Node{engine("a")}, []member.Server{voter("a"), voter("b")}, heard("a"), &member.Step{Action: member.Remove, ID: "b"}},
		"it has moved":                   {both, []member.Server{voter("a"), voter("b")}, moved, &member.Step{Action: member.Move, ID: "b", Address: "b:2", Voter: true}},
	} {
		got := member.Next(tc.nodes, tc.servers, tc.heard, 1000, now)
		if (got == nil) != (tc.want == nil) || got != nil && *got != *tc.want {
			t.Errorf("%s: %+v, want %+v", name, got, tc.want)
		}
	}
}

func TestRemoval(t *testing.T) {
	three := []member.Server{voter("a"), voter("b"), voter("c")}
	for name, tc := range map[string]struct {
		id      string
		servers []member.Server
		heard   map[string]member.Heard
		ok      bool
	}{
		"one of three":                     {"a", three, heard("a", "b", "c"), true},
		"the dead one of three":            {"c", three, heard("a", "b"), true},
		"a live one while another is dead": {"a", three, heard("a", "b"), false},
		"one of two":                       {"b", three[:2], heard("a", "b"), true},
		"the live one of two":              {"b", three[:2], heard("b"), false},
		"the last":                         {"a", three[:1], heard("a"), false},
		"one that doesn't vote":            {"d", three, heard("a"), true},
	} {
		if err := member.Removal(tc.id, tc.servers, tc.heard, now); (err == nil) != tc.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Whatever the servers were, the steps come to an end with those that are
// wanted and there, and no step adds a vote that can't be reached.
func TestStepsComeToAnEnd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var nodes []*api.Node
		known := map[string]member.Heard{}
		var servers []member.Server
		for i := range rapid.IntRange(1, 7).Draw(t, "nodes") {
			id := fmt.Sprint("n", i)
			if rapid.Bool().Draw(t, "node") {
				nodes = append(nodes, &api.Node{Id: id, Role: rapid.SampledFrom([]string{"engine", "agent"}).Draw(t, "role")})
			}
			if rapid.Bool().Draw(t, "heard") {
				known[id] = member.Heard{At: now, Address: rapid.SampledFrom([]string{"x:1", "y:1"}).Draw(t, "address"), Applied: 5000}
			}
			if rapid.Bool().Draw(t, "server") {
				servers = append(servers, member.Server{ID: id, Address: "x:1", Voter: rapid.Bool().Draw(t, "voter")})
			}
		}
		for range 100 {
			s := member.Next(nodes, servers, known, 5000, now)
			if s == nil {
				for _, n := range nodes {
					_, there := known[n.Id]
					in := false
					for _, s := range servers {
						in = in || s.ID == n.Id && (s.Voter || !there)
					}
					if n.Role == "engine" && there && !in {
						t.Fatalf("%s is wanted and there, and doesn't vote: %v", n.Id, servers)
					}
				}
				return
			}
			kept := servers[:0:0]
			for _, old := range servers {
				if old.ID != s.ID {
					kept = append(kept, old)
				}
			}
			servers = kept
			switch s.Action {
			case member.Add:
				servers = append(servers, member.Server{ID: s.ID, Address: s.Address})
			case member.Promote, member.Move:
				if _, there := known[s.ID]; !there {
					t.Fatalf("%+v of one that isn't there", s)
				}
				servers = append(servers, member.Server{ID: s.ID, Address: s.Address, Voter: s.Voter})
			}
		}
		t.Fatal("the steps don't come to an end")
	})
}

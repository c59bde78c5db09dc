package playtest

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"orch/engine/simulate"
	"orch/playbooks"
)

// unhurried is more than a test needs anywhere, with the race detector too.
const unhurried = 10 * time.Minute

func TestSimulate(t *testing.T) {
	n := 0
	err := Run(t.Context(), []string{filepath.Join("testdata", "simulate_test.star")}, Options{MaxTime: unhurried}, func(r Result) {
		n++
		if !r.OK() {
			t.Errorf("%s: %v", r.Test, r.Err)
		}
	})
	if err != nil || n == 0 {
		t.Errorf("%d tests, %v", n, err)
	}
}

func TestSimulateRefusals(t *testing.T) {
	failing(t, "simulate_fail_test.star", map[string]string{
		"test_no_param":           `t.simulate has no parameter "unhealty"; did you mean "unhealthy"?`,
		"test_no_service":         `t.simulate: unhealthy names service "wep", which there isn't; did you mean "web"?`,
		"test_no_version":         `t.simulate: crash names "web": write "web@new" or "web@old"`,
		"test_same_version":       `service "web" is the same in both releases; before = {...} can make it differ`,
		"test_no_older":           `the older release has no service "cache"`,
		"test_no_node":            `crash names node "n9", which there isn't; did you mean "n1"?`,
		"test_nodes":              "t.simulate: nodes must be a number of nodes from 1 to 1000",
		"test_labels":             "t.simulate: nodes must have strings as labels of n1",
		"test_duration":           `t.simulate: start must give "web" a duration such as "20s", not 5 (int)`,
		"test_probes":             `probes must give "web" a list of True and False`,
		"test_kill":               `kill_leader_at must be the number of an op, from 0, or "every"`,
		"test_before":             `did you mean "image"?`,
		"test_not_steady":         "t.simulate: the older release doesn't come up: web is",
		"test_ask_for_no_service": `the simulation has no service "wep"; did you mean "web"?`,
		"test_ask_for_no_version": `running: version must be "old" or "new", not "newer"`,
	})
}

// Endings that differ are shown where they do.
func TestDifference(t *testing.T) {
	got := difference("a\n  b 1\nc\n", "a\n  b 2\nc\n")
	if want := "    then:  b 1\n    else:  b 2"; got != want {
		t.Errorf("got %q", got)
	}
	if got := difference("a\n", "a\nb\n"); !strings.Contains(got, "nothing more") {
		t.Errorf("got %q", got)
	}
}

// TestCover: lines of strategies that simulations didn't reach are told, those
// of functions that never ran as one don't count.
func TestCover(t *testing.T) {
	cover := &playbooks.Coverage{}
	match := func(test string) bool { return test == "test_a_broken_strategy_needs_an_operator" }
	run := func() []playbooks.CoveredFile {
		if err := Run(t.Context(), []string{"testdata/simulate_test.star"}, Options{Cover: cover, Match: match, MaxTime: unhurried}, func(r Result) {
			if !r.OK() {
				t.Error(r.Err)
			}
		}); err != nil {
			t.Fatal(err)
		}
		// The other services go by the library's rolling.
		return slices.DeleteFunc(cover.Files(), func(f playbooks.CoveredFile) bool { return strings.HasPrefix(f.File, "@") })
	}
	got := run()
	if len(got) != 1 || !strings.HasSuffix(filepath.ToSlash(got[0].File), "/testdata/shop.star") || got[0].Lines != 2 || got[0].Reached != 2 {
		t.Errorf("got %+v", got)
	}
	match = func(test string) bool { return test == "test_a_release_can_pause" }
	got = run()
	if len(got) != 1 || got[0].Lines != 9 || got[0].Reached != 6 || len(got[0].Missed) != 1 {
		t.Fatalf("got %+v", got)
	}
	if m := got[0].Missed[0]; m.From != 13 || m.To != 15 || m.Text[2] != "    return r.succeed()" {
		t.Errorf("missed %+v", m)
	}
}

func TestDoc(t *testing.T) {
	for _, name := range Names() {
		if text, ok := Doc(name); !ok || !strings.Contains(text, name) {
			t.Errorf("%s: %q", name, text)
		}
	}
	for _, m := range methods {
		for _, p := range m.params {
			if p.doc == "" {
				t.Errorf("%s(%s) has no doc", m.name, p.name)
			}
		}
	}
	if _, ok := Doc("t.none"); ok {
		t.Error("there is a manual of t.none")
	}
}

// BenchmarkSimulate plays a release of 12 replicas through: 26 ops; the goal is
// 50 ms.
func BenchmarkSimulate(b *testing.B) {
	r, err := playbooks.Eval(b.Context(), playbooks.Options{Path: filepath.Join("testdata", "shop.star"), Params: map[string]any{"replicas": 12}})
	if err != nil {
		b.Fatal(err)
	}
	ask := &playbooks.Strategies{}
	c := &call{method: simulateMethod}
	nodes, err := c.nodes()
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		play := &simulate.Play{Strategy: ask, Nodes: nodes,
			After:  simulate.Source{Spec: r.Spec, Bundle: r.Bundle},
			Before: simulate.Source{Spec: simulate.Older(r.Spec), Bundle: r.Bundle}}
		played, err := playThrough(b.Context(), play, false)
		if err != nil || played.Outcome != "succeeded" || len(played.Services["web"].Ops) != 27 {
			b.Fatal(err, played.Outcome, len(played.Services["web"].Ops))
		}
	}
}

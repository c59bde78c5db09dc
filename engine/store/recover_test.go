package store_test

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"orch/engine/store"
)

// patience is a timing in which nobody would stand for election by itself
// while a test runs.
var patience = store.Timing{Heartbeat: time.Hour, Election: time.Hour, Lease: time.Hour}

// A lone voter leads at once, however long its timers: after Bootstrap, after
// a restart, with a member that has no vote, and as the last of several.
func TestLoneVoterLeadsAtOnce(t *testing.T) {
	t.Parallel()
	g := newGroup(t, patience, "a")
	m := g.all[0]
	g.form(t)
	g.put(t, "n")
	m.kill(t)
	m.start(t)
	g.put(t, "restarted")
	if err := m.store().Bootstrap(); err != nil {
		t.Errorf("a second Bootstrap is no error: %v", err)
	}
	if err := m.store().AddNonvoter(t.Context(), "b", "127.0.0.1:1"); err != nil {
		t.Fatal(err)
	}
	m.stop(t)
	m.start(t)
	g.put(t, "with a nonvoter")
	if err := m.store().Verify(t.Context()); err != nil {
		t.Error(err)
	}
}

// One of several doesn't lead without the others.
func TestOneOfThreeWaits(t *testing.T) {
	t.Parallel()
	g := trio(t)
	g.put(t, "n")
	agree(t, g.all, 1)
	for _, m := range g.all {
		m.kill(t)
	}
	m := g.all[0]
	m.start(t)
	term := m.store().Term()
	tick := time.NewTicker(5 * quick.Election)
	defer tick.Stop()
	<-tick.C
	if s := m.store(); s.Leads() || s.Term() != term {
		t.Errorf("it leads: %t; its term was %d and is %d: PreVote should have kept it", s.Leads(), term, s.Term())
	}
}

// When all others are lost, a survivor's folder becomes the cluster again,
// and others join anew.
func TestRecoverFromOneSurvivor(t *testing.T) {
	t.Parallel()
	for _, snapshot := range []bool{false, true} {
		g := trio(t)
		g.put(t, names("n", 20)...)
		agree(t, g.all, 20)
		survivor := g.all[1]
		if snapshot {
			if err := survivor.store().Snapshot(); err != nil {
				t.Fatal(err)
			}
			g.put(t, "tail")
			g.put(t, "n000")
			eventually(t, func() bool { return survivor.store().View().Node("tail") != nil })
		}
		want := len(survivor.store().View().Nodes())
		for _, m := range g.all {
			m.kill(t)
		}
		survivor.move() // it may even be on another host
		survivor.start(t)
		survivor.kill(t)
		if err := store.Recover(survivor.config()); err != nil {
			t.Fatal(err)
		}
		survivor.timing = patience
		survivor.start(t)
		eventually(t, survivor.store().Leads)
		g.put(t, "n000")
		if got := voters(survivor.store()); got != "b" {
			t.Errorf("it counts %q", got)
		}
		if got := survivor.store().Members()[0].Address; got != survivor.address {
			t.Errorf("it is at %s, not %s", got, survivor.address)
		}
		agree(t, []*member{survivor}, want)
		survivor.stop(t)
		survivor.timing = quick
		survivor.start(t)
		for _, m := range g.others(survivor) {
			m.wipe(t)
			m.start(t)
			g.join(t, m)
		}
		g.put(t, "after")
		agree(t, g.all, want+1)
	}
}

// Where there is nothing to recover, nothing is.
func TestRecoverOfNothing(t *testing.T) {
	t.Parallel()
	c := config(t.TempDir())
	c.Address = "127.0.0.1:1"
	if err := store.Recover(c); err == nil || !strings.Contains(err.Error(), "there is nothing in "+c.Dir+" to recover") {
		t.Errorf("got %v", err)
	}
	c = config(filepath.Join(c.Dir, "data"))
	s := open(t, c) // never part of a cluster
	shut(t, s)
	if err := store.Recover(c); err == nil || !strings.Contains(err.Error(), "nothing in "+c.Dir) {
		t.Errorf("got %v", err)
	}
}

// A running store's folder is not recovered.
func TestRecoverOfARunningStore(t *testing.T) {
	t.Parallel()
	c := config(t.TempDir())
	s := lead(t, c)
	defer shut(t, s)
	if err := store.Recover(c); err == nil || !strings.Contains(err.Error(), "in use by another orch") {
		t.Errorf("got %v", err)
	}
	propose(t, s, "n")
}

// A state becomes a cluster of one, which others join; a folder that has a
// log is left alone.
func TestSeed(t *testing.T) {
	t.Parallel()
	from := lead(t, config(""))
	defer shut(t, from)
	propose(t, from, names("n", 20)...)

	g := newGroup(t, patience, "a")
	m := g.all[0]
	m.kill(t)
	m.wipe(t)
	if err := store.Seed(m.config(), from.View()); err != nil {
		t.Fatal(err)
	}
	m.start(t)
	eventually(t, m.store().Leads)
	if !bytes.Equal(dump(t, m.store()), dump(t, from)) {
		t.Error("the state is another")
	}
	g.put(t, "more")
	m.stop(t)
	if err := store.Seed(m.config(), from.View()); err == nil || !strings.Contains(err.Error(), "there is a log in "+m.dir) {
		t.Errorf("a second time: %v", err)
	}
	m.timing = quick
	m.start(t)
	g.timing = quick
	g.join(t, g.add(t, "b"))
	g.put(t, "last")
	agree(t, g.all, 22)
}

// A state in which nothing has happened yet can be a seed, too.
func TestSeedOfNothing(t *testing.T) {
	t.Parallel()
	empty := open(t, config(""))
	defer shut(t, empty)
	c := config(t.TempDir())
	c.Address = "127.0.0.1:1"
	if err := store.Seed(c, empty.View()); err != nil {
		t.Fatal(err)
	}
	s := open(t, c)
	defer shut(t, s)
	leads(t, s)
	propose(t, s, "n")
}

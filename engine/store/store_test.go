package store_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/timestamppb"

	"orch/engine/api"
	"orch/engine/state"
	"orch/engine/store"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// putNode is a command as good as any other.
func putNode(name string) *api.Command {
	return &api.Command{
		Time: timestamppb.New(epoch), Version: state.CommandSet,
		Kind: &api.Command_PutNode{PutNode: &api.Node{Id: name, Name: name, StatusReason: strings.Repeat("x", 100)}},
	}
}

func config(dir string) store.Config {
	return store.Config{Dir: dir, NodeID: "a", Layer: store.NewLayer(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}, &tls.Config{}),
		Logger: slog.New(slog.DiscardHandler)}
}

func open(t testing.TB, c store.Config) *store.Store {
	t.Helper()
	s, err := store.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// lead opens a store of one and waits until it leads and has applied its log.
func lead(t testing.TB, c store.Config) *store.Store {
	t.Helper()
	s := open(t, c)
	if err := s.Bootstrap(); err != nil {
		t.Fatal(err)
	}
	leads(t, s)
	if err := s.Barrier(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

func leads(t testing.TB, s *store.Store) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		select {
		case yes := <-s.Leading():
			if yes {
				return
			}
		case <-deadline:
			t.Fatal("it never led")
		}
	}
}

func propose(t testing.TB, s *store.Store, names ...string) {
	t.Helper()
	for _, n := range names {
		if _, err := s.Propose(t.Context(), putNode(n)); err != nil {
			t.Fatal(err)
		}
	}
}

func dump(t testing.TB, s *store.Store) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := s.Backup(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func shut(t testing.TB, s *store.Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func names(prefix string, n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("%s%03d", prefix, i)
	}
	return all
}

func TestRestartKeepsTheState(t *testing.T) {
	dir := t.TempDir()
	s := lead(t, config(dir))
	propose(t, s, names("n", 20)...)
	// A refusal is part of the history too.
	bad := putNode("x")
	bad.GetPutNode().Name = "n001"
	var refusal *state.Refusal
	if _, err := s.Propose(t.Context(), bad); !errors.As(err, &refusal) || refusal.Kind != state.InUse {
		t.Fatalf("a taken name: %v", err)
	}
	want := dump(t, s)
	shut(t, s)
	s = lead(t, config(dir))
	defer shut(t, s)
	if !bytes.Equal(dump(t, s), want) {
		t.Error("the state after a restart is another")
	}
}

// Snapshots and a cut log together give what the whole log gave.
func TestSnapshotAndTailAreTheState(t *testing.T) {
	dir := t.TempDir()
	c := config(dir)
	c.TrailingLogs = 4
	s := lead(t, c)
	for round := range 4 {
		propose(t, s, names(fmt.Sprint("r", round, "-"), 10)...)
		if err := s.Snapshot(); err != nil {
			t.Fatal(err)
		}
		if err := s.Snapshot(); err != nil {
			t.Fatal("nothing new is no error:", err)
		}
		propose(t, s, names(fmt.Sprint("t", round, "-"), 3)...)
	}
	if first, last := s.LogRange(); first < 2 || last-first > 12 {
		t.Errorf("the log keeps %d to %d: it was not cut", first, last)
	}
	want := dump(t, s)
	shut(t, s)
	for range 2 {
		s = lead(t, c)
		if !bytes.Equal(dump(t, s), want) {
			t.Error("snapshot and tail give another state")
		}
		shut(t, s)
	}
	snaps, err := os.ReadDir(filepath.Join(dir, "snapshots"))
	if err != nil || len(snaps) != 2 {
		t.Fatalf("%d snapshots are kept, want 2 (%v)", len(snaps), err)
	}
}

// A newest snapshot that rotted is passed over for the one before, as long
// as the log reaches back to it.
func TestDamagedSnapshotIsPassedOver(t *testing.T) {
	dir := t.TempDir()
	s := lead(t, config(dir))
	for _, p := range []string{"a", "b"} {
		propose(t, s, names(p, 5)...)
		if err := s.Snapshot(); err != nil {
			t.Fatal(err)
		}
	}
	propose(t, s, "tail")
	want := dump(t, s)
	shut(t, s)
	found, err := filepath.Glob(filepath.Join(dir, "snapshots", "*", "state.bin"))
	if err != nil || len(found) != 2 {
		t.Fatal(found, err)
	}
	newest := found[1]
	flip(t, newest, 40)
	s = lead(t, config(dir))
	defer shut(t, s)
	if !bytes.Equal(dump(t, s), want) {
		t.Error("the state is another")
	}
}

func flip(t *testing.T, path string, at int64) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[at] ^= 0xff
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestInMemory(t *testing.T) {
	s := lead(t, config(""))
	defer shut(t, s)
	propose(t, s, "n")
	if s.View().Node("n") == nil {
		t.Error("it is not there")
	}
}

func TestProposeEndsWithItsContext(t *testing.T) {
	s := lead(t, config(""))
	defer shut(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Propose(ctx, putNode("n")); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestFollowerRefuses(t *testing.T) {
	s := open(t, config("")) // never bootstrapped
	defer shut(t, s)
	if _, err := s.Propose(t.Context(), putNode("n")); !errors.Is(err, store.ErrNotLeader) {
		t.Errorf("got %v", err)
	}
	if err := s.Barrier(t.Context()); !errors.Is(err, store.ErrNotLeader) {
		t.Errorf("got %v", err)
	}
}

// A disk that takes no writes: proposals end at once and say why; when it
// takes them again all goes on, and what was under way happens after all.
func TestDiskThatTakesNoWrites(t *testing.T) {
	full := make(chan error, 1)
	full <- nil
	s := open(t, store.FailWrites(config(t.TempDir()), func() error { e := <-full; full <- e; return e }))
	set := func(err error) { <-full; full <- err }
	if err := s.Bootstrap(); err != nil {
		t.Fatal(err)
	}
	leads(t, s)
	propose(t, s, "before")
	set(errors.New("no space left on device"))
	began := time.Now()
	for range 3 {
		_, err := s.Propose(t.Context(), putNode("during"))
		if err == nil || !strings.Contains(err.Error(), "no space left on device") {
			t.Errorf("got %v", err)
		}
	}
	if d := time.Since(began); d > 2*time.Second {
		t.Errorf("the refusals took %s", d)
	}
	set(nil)
	eventually(t, func() bool { _, err := s.Propose(t.Context(), putNode("after")); return err == nil })
	if v := s.View(); v.Node("before") == nil || v.Node("during") == nil || v.Node("after") == nil {
		t.Errorf("got %v", v.Nodes())
	}
	// An engine can be ended while its disk is full.
	set(errors.New("no space left on device"))
	_, _ = s.Propose(t.Context(), putNode("never"))
	shut(t, s)
}

// A vote that can't be saved must not be a panic, nor keep the engine from
// ending.
func TestCloseWhileAVoteCannotBeSaved(t *testing.T) {
	dir := t.TempDir()
	shut(t, lead(t, config(dir)))
	tried := make(chan struct{}, 100)
	var full atomic.Bool
	c := config(dir)
	c.Timing = store.Timing{Heartbeat: time.Second, Election: time.Second, Lease: time.Second}
	s := open(t, store.FailWrites(c, func() error {
		if !full.Load() {
			return nil
		}
		tried <- struct{}{}
		return errors.New("no space left on device")
	}))
	full.Store(true)
	<-tried
	shut(t, s)
}

func TestOpenOnADiskThatTakesNoWrites(t *testing.T) {
	_, err := store.Open(store.FailWrites(config(t.TempDir()), func() error { return errors.New("no space left on device") }))
	if err == nil || !strings.HasPrefix(err.Error(), "cannot write the raft log in /") || !strings.HasSuffix(err.Error(), ": no space left on device") {
		t.Errorf("got %v", err)
	}
}

func eventually(t testing.TB, is func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(time.Minute)
	for !is() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("it never came to pass")
		}
	}
}

package store_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"orch/engine/store"
)

func sealed(dir string) store.Config {
	c := config(dir)
	c.Key = bytes.Repeat([]byte{7}, 32)
	return c
}

// files are all in a folder that have what in them.
func filesWith(t *testing.T, dir, what string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte(what)) {
			found = append(found, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// With a key, neither the log nor a snapshot tells what is in it, and both
// are read again; with another key neither is.
func TestSealedAtRest(t *testing.T) {
	dir := t.TempDir()
	c := sealed(dir)
	c.TrailingLogs = 2
	s := lead(t, c)
	const marker = "a-marker-in-the-log"
	put := func(n int) {
		for i := range n {
			if _, err := s.Propose(t.Context(), putNode(fmt.Sprintf("%s-%d", marker, i))); err != nil {
				t.Fatal(err)
			}
		}
	}
	put(900) // the snapshot has several chunks
	if err := s.Snapshot(); err != nil {
		t.Fatal(err)
	}
	put(950)
	want := dump(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if found := filesWith(t, dir, marker); len(found) > 0 {
		t.Errorf("it stands in %q", found)
	}
	s = lead(t, c)
	if !bytes.Equal(dump(t, s), want) {
		t.Error("another state after a restart")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	other := c
	other.Key = bytes.Repeat([]byte{8}, 32)
	if s, err := store.Open(other); err == nil || !strings.Contains(err.Error(), "can't be decrypted") {
		t.Errorf("another key: %v", err)
		if s != nil {
			s.Close()
		}
	}
}

// A snapshot that was changed or cut is told from a whole one.
func TestSealedSnapshotDamaged(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"a bit":            func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		"its end":          func(b []byte) []byte { return b[:len(b)-1] },
		"its last chunk":   func(b []byte) []byte { return b[:8+19+64<<10+16] },
		"two chunks swept": func(b []byte) []byte { return append(b[:8+19:8+19], b[8+19+64<<10+16:]...) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			c := sealed(dir)
			c.TrailingLogs = 1
			s := lead(t, c)
			for i := range 900 {
				if _, err := s.Propose(context.Background(), putNode(fmt.Sprintf("n%d", i))); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.Snapshot(); err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			files, err := filepath.Glob(filepath.Join(dir, "snapshots", "*", "state.bin"))
			if err != nil || len(files) != 1 {
				t.Fatal(files, err)
			}
			b, err := os.ReadFile(files[0])
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(files[0], damage(b), 0o600); err != nil {
				t.Fatal(err)
			}
			if s, err := store.Open(c); err == nil {
				s.Close()
				t.Error("it was taken")
			}
		})
	}
}

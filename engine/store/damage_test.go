package store_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"orch/engine/store"
)

// written makes a data folder whose log holds n entries, and closes it.
func written(t *testing.T, config func(string) store.Config, n int) (dir, log string) {
	t.Helper()
	dir = t.TempDir()
	s := lead(t, config(dir))
	propose(t, s, names("n", n)...)
	shut(t, s)
	return dir, filepath.Join(dir, "raft.db")
}

func sum(t *testing.T, path string) [32]byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(b)
}

// A log that can't be whole is refused in words that say what to do, and
// left as it is: whoever mends it needs what is there.
func TestDamagedLogIsRefusedAndLeftAlone(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, config func(dir string) store.Config) {
		for name, c := range map[string]struct {
			damage func(t *testing.T, path string)
			want   string
		}{
			"cut in the middle":    {func(t *testing.T, p string) { cut(t, p, 0.5) }, "is cut short"},
			"cut near the end":     {func(t *testing.T, p string) { cut(t, p, 0.9) }, "is cut short"},
			"cut to one page":      {func(t *testing.T, p string) { truncate(t, p, 4096) }, "is damaged"},
			"empty":                {func(t *testing.T, p string) { truncate(t, p, 0) }, "is damaged"},
			"a few bytes":          {func(t *testing.T, p string) { truncate(t, p, 10) }, "is damaged"},
			"garbage":              {func(t *testing.T, p string) { overwrite(t, p, bytes.Repeat([]byte("no log "), 10_000)) }, "is damaged"},
			"both metas corrupted": {func(t *testing.T, p string) { flip(t, p, 40); flip(t, p, 4096+40) }, "is damaged"},
		} {
			t.Run(name, func(t *testing.T) {
				dir, log := written(t, config, 50)
				c.damage(t, log)
				before := sum(t, log)
				s, err := store.Open(config(dir))
				if err == nil {
					shut(t, s)
					t.Fatal("it was opened")
				}
				if !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "nothing was changed") || !strings.Contains(err.Error(), log) {
					t.Errorf("got %q", err)
				}
				if sum(t, log) != before {
					t.Error("the file was changed")
				}
			})
		}
	})
}

func cut(t *testing.T, path string, share float64) {
	t.Helper()
	used := pages(t, path) * 4096
	truncate(t, path, int64(share*float64(used)))
}

// pages is the file's high-water mark, from the newest of bbolt's two meta
// pages: 16 bytes of page header, magic, version, page size, flags, root
// bucket (16), freelist, pgid, txid.
func pages(t *testing.T, path string) int64 {
	t.Helper()
	pgid, _ := newestMeta(t, path)
	return pgid
}

func newestMeta(t *testing.T, path string) (pgid, offset int64) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var newest uint64
	for _, at := range []int64{0, 4096} {
		if txid := binary.LittleEndian.Uint64(b[at+16+48:]); txid >= newest {
			newest, offset = txid, at
			pgid = int64(binary.LittleEndian.Uint64(b[at+16+40:]))
		}
	}
	return pgid, offset
}

func truncate(t *testing.T, path string, size int64) {
	t.Helper()
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
}

func overwrite(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// bbolt keeps two meta pages. One that was torn while it was written (never
// acknowledged: the write is synced before the entry counts) is passed over
// for the one before. Were an acknowledged one to rot on disk, the log would
// be one transaction shorter: of a cluster of one the last entry would be
// gone, in a cluster of several the others bring it back.
func TestTornMetaFallsBackByOneTransaction(t *testing.T) {
	both(t, func(t *testing.T, config func(dir string) store.Config) {
		dir, log := written(t, config, 50)
		_, at := newestMeta(t, log)
		flip(t, log, at+16+40)
		s := lead(t, config(dir))
		defer shut(t, s)
		if n := len(s.View().Nodes()); n < 49 {
			t.Errorf("%d of 50 nodes are left", n)
		}
		propose(t, s, "goes-on")
	})
}

func TestSecondOpenerIsToldSo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := lead(t, config(dir))
	defer shut(t, s)
	other, err := store.Open(config(dir))
	if err == nil {
		shut(t, other)
		t.Fatal("it was opened twice")
	}
	if want := "in use by another orch"; !strings.Contains(err.Error(), want) {
		t.Errorf("got %q, want %q in it", err, want)
	}
	propose(t, s, "still-works")
}

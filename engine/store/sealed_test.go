package store_test

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"orch/engine/store"
)

func sealed(dir string) store.Config {
	c := config(dir)
	c.Key = bytes.Repeat([]byte{7}, 32)
	return c
}

// both runs a test with files as they are and with encrypted ones.
func both(t *testing.T, test func(*testing.T, func(dir string) store.Config)) {
	t.Run("plain", func(t *testing.T) { test(t, config) })
	t.Run("sealed", func(t *testing.T) { test(t, sealed) })
}

const marker = "a-marker-in-the-log"

// filesWith are all in a folder that have what in them.
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

// marked writes a folder with a snapshot of several chunks, and a tail.
func marked(t *testing.T, c store.Config) (state []byte) {
	t.Helper()
	s := lead(t, c)
	for i := range 6 {
		big := putNode(marker + strings.Repeat("x", i))
		big.GetPutNode().StatusReason = strings.Repeat(marker, 30<<10/len(marker))
		if _, err := s.Propose(t.Context(), big); err != nil {
			t.Fatal(err)
		}
		if i == 4 {
			if err := s.Snapshot(); err != nil {
				t.Fatal(err)
			}
		}
	}
	state = dump(t, s)
	shut(t, s)
	return state
}

// With a key, neither the log nor a snapshot tells what is in it, and both
// are read again. Without one they do: the test would see it.
func TestSealedAtRest(t *testing.T) {
	both(t, func(t *testing.T, config func(string) store.Config) {
		c := config(t.TempDir())
		c.TrailingLogs = 2
		want := marked(t, c)
		if found := filesWith(t, c.Dir, marker); (len(found) > 0) != (c.Key == nil) {
			t.Errorf("it stands in %q", found)
		}
		for range 2 {
			s := lead(t, c)
			if !bytes.Equal(dump(t, s), want) {
				t.Error("another state after a restart")
			}
			shut(t, s)
		}
	})
}

// mustRefuse opens a folder that must not be opened, and must stay as it is.
func mustRefuse(t *testing.T, c store.Config, want ...string) {
	t.Helper()
	log := filepath.Join(c.Dir, "raft.db")
	before := sum(t, log)
	s, err := store.Open(c)
	if err == nil {
		shut(t, s)
		t.Fatal("it was opened")
	}
	for _, w := range append(want, c.Dir) {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("got %q, want %q in it", err, w)
		}
	}
	if sum(t, log) != before {
		t.Error("the log was changed")
	}
}

func TestAnotherKey(t *testing.T) {
	c := sealed(t.TempDir())
	want := marked(t, c)
	other := c
	other.Key = bytes.Repeat([]byte{8}, 32)
	mustRefuse(t, other, "of another key", "nothing was changed")
	other.Key = nil
	mustRefuse(t, other, "is encrypted, and no key was given")
	other.Key = []byte("short")
	mustRefuse(t, other, "cannot encrypt the raft log")
	s := lead(t, c)
	if !bytes.Equal(dump(t, s), want) {
		t.Error("the state is another")
	}
	shut(t, s)

	plain := config(t.TempDir())
	marked(t, plain)
	plain.Key = c.Key
	mustRefuse(t, plain, "is not encrypted, and a key was given", "nothing was changed")
}

// An entry that was changed, or put in another's place, is no entry.
func TestSealedEntryDamaged(t *testing.T) {
	for name, damage := range map[string]func(all [][]byte){
		"a bit":     func(all [][]byte) { all[4][len(all[4])/2] ^= 1 },
		"the nonce": func(all [][]byte) { all[4][3] ^= 1 },
		"format":    func(all [][]byte) { all[4][0]++ },
		"swapped":   func(all [][]byte) { all[4], all[5] = all[5], all[4] },
		"emptied":   func(all [][]byte) { all[4] = nil },
	} {
		t.Run(name, func(t *testing.T) {
			c := sealed(t.TempDir())
			s := lead(t, c)
			propose(t, s, names("n", 10)...)
			shut(t, s)
			store.EditLog(t, c.Dir, damage)
			path := filepath.Join(c.Dir, "raft.db")
			s, err := store.Open(c)
			if err == nil {
				shut(t, s)
				t.Fatal("it was opened")
			}
			if !strings.Contains(err.Error(), "entry 5 of the raft log "+path) {
				t.Errorf("got %q", err)
			}
		})
	}
}

// A snapshot that was changed, cut, or is of another index is no snapshot.
func TestSealedSnapshotDamaged(t *testing.T) {
	t.Parallel()
	const head, chunk = 8 + 19, 64<<10 + 16
	for name, damage := range map[string]func([]byte) []byte{
		"a bit":           func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		"its end":         func(b []byte) []byte { return b[:len(b)-1] },
		"its last chunk":  func(b []byte) []byte { return b[:len(b)-(len(b)-head)%chunk] },
		"its first chunk": func(b []byte) []byte { return append(b[:head:head], b[head+chunk:]...) },
		"two chunks swapped": func(b []byte) []byte {
			return bytes.Join([][]byte{b[:head], b[head+chunk : head+2*chunk], b[head : head+chunk], b[head+2*chunk:]}, nil)
		},
		"no head":   func(b []byte) []byte { return b[:5] },
		"not ours":  func(b []byte) []byte { return bytes.Repeat([]byte("no"), len(b)/2) },
		"no chunks": func(b []byte) []byte { return b[:head] },
		"":          func(b []byte) []byte { return b },
	} {
		t.Run(name, func(t *testing.T) {
			c := sealed(t.TempDir())
			c.TrailingLogs = 1
			marked(t, c)
			files, err := filepath.Glob(filepath.Join(c.Dir, "snapshots", "*", "state.bin"))
			if err != nil || len(files) != 1 {
				t.Fatal(files, err)
			}
			b, err := os.ReadFile(files[0])
			if err != nil || len(b) < head+2*chunk {
				t.Fatal(len(b), err)
			}
			overwrite(t, files[0], damage(b))
			store.MendSum(t, c.Dir) // raft's own check sum isn't what finds it
			s, err := store.Open(c)
			if name == "" {
				if err != nil {
					t.Fatal(err)
				}
				shut(t, s)
				return
			}
			if err == nil {
				shut(t, s)
				t.Fatal("it was taken")
			}
			if !strings.Contains(err.Error(), "the snapshot "+files[0]) {
				t.Errorf("got %q", err)
			}
		})
	}
}

// Raft sends as many bytes as it is told a snapshot has.
func TestSealedSizes(t *testing.T) {
	snaps := store.SealedSnapshots(t, t.TempDir())
	for i, size := range []int{0, 1, 64<<10 - 1, 64 << 10, 64<<10 + 1, 128 << 10, 128<<10 + 1, 200_000} {
		plain := bytes.Repeat([]byte{byte(i + 1)}, size)
		sink, err := snaps.Create(1, uint64(i+1), 1, raft.Configuration{}, 1, raftTransport())
		if err != nil {
			t.Fatal(err)
		}
		for rest := plain; len(rest) > 0; { // not in whole chunks
			n := min(len(rest), 30_000)
			if _, err := sink.Write(rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		if err := sink.Close(); err != nil {
			t.Fatal(err)
		}
		all, err := snaps.List()
		if err != nil || all[0].Index != uint64(i+1) || all[0].Size != int64(size) {
			b, _ := json.Marshal(all)
			t.Errorf("%d bytes: listed as %s, %v", size, b, err)
		}
		meta, r, err := snaps.Open(sink.ID())
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(got, plain) || meta.Size != int64(size) {
			t.Errorf("%d bytes: %d read of %d, %v", size, len(got), meta.Size, err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

func raftTransport() raft.Transport {
	_, t := raft.NewInmemTransport("")
	return t
}

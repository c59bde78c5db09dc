package store

import (
	"encoding/json"
	"hash/crc64"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"golang.org/x/crypto/chacha20poly1305"
)

// EditLog changes what the entries of a log that nobody has open hold, from
// the first, all[0], on.
func EditLog(t testing.TB, dir string, edit func(all [][]byte)) {
	t.Helper()
	bolt, err := raftboltdb.NewBoltStore(filepath.Join(dir, "raft.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer bolt.Close()
	last, err := bolt.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	entries := make([]*raft.Log, last)
	all := make([][]byte, last)
	for i := range entries {
		entries[i] = &raft.Log{}
		if err := bolt.GetLog(uint64(i+1), entries[i]); err != nil {
			t.Fatal(err)
		}
		all[i] = entries[i].Data
	}
	edit(all)
	for i, l := range entries {
		l.Data = all[i]
	}
	if err := bolt.StoreLogs(entries); err != nil {
		t.Fatal(err)
	}
}

// MendSum makes raft's check sums of snapshots those of the files.
func MendSum(t testing.TB, dir string) {
	t.Helper()
	metas, err := filepath.Glob(filepath.Join(dir, "snapshots", "*", "meta.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range metas {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		meta := map[string]any{}
		if err := json.Unmarshal(text, &meta); err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(filepath.Join(filepath.Dir(path), "state.bin"))
		if err != nil {
			t.Fatal(err)
		}
		h := crc64.New(crc64.MakeTable(crc64.ECMA))
		h.Write(content)
		meta["CRC"] = h.Sum(nil)
		if text, err = json.Marshal(meta); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// SealedSnapshots are those of a folder, with some key.
func SealedSnapshots(t testing.TB, dir string) raft.SnapshotStore {
	t.Helper()
	snaps, err := raft.NewFileSnapshotStore(dir, 2, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := chacha20poly1305.NewX(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	return &sealedSnapshots{snaps, aead, filepath.Join(dir, "snapshots")}
}

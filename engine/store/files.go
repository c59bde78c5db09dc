package store

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	"golang.org/x/crypto/chacha20poly1305"
)

// files are where raft keeps what must outlive the process.
type files struct {
	logs   raft.LogStore
	stable raft.StableStore
	snaps  raft.SnapshotStore
	bolt   io.Closer
}

// openFiles opens or makes those of c.Dir.
func openFiles(c Config) (f files, err error) {
	if c.Dir == "" {
		m := raft.NewInmemStore()
		return files{logs: m, stable: m, snaps: raft.NewInmemSnapshotStore()}, nil
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return f, fmt.Errorf("cannot make the data folder: %w", err)
	}
	path := filepath.Join(c.Dir, "raft.db")
	if c.Key != nil && len(c.Key) != chacha20poly1305.KeySize {
		return f, fmt.Errorf("cannot encrypt the raft log %s: its key has %d bytes, not %d", path, len(c.Key), chacha20poly1305.KeySize)
	}
	if err := checkLog(path, c.Key); err != nil {
		return f, err
	}
	bolt, err := raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: &bbolt.Options{Timeout: time.Second}})
	if err != nil {
		return f, fmt.Errorf("cannot open the raft log %s: %w", path, err)
	}
	f = files{logs: bolt, stable: bolt, bolt: bolt}
	defer func() {
		if err != nil {
			f.close()
		}
	}()
	if f.snaps, err = raft.NewFileSnapshotStoreWithLogger(c.Dir, 2, raftLogger(c.Logger)); err != nil {
		return f, fmt.Errorf("cannot open the snapshots in %s: %w", c.Dir, err)
	}
	if c.Key != nil {
		err = f.seal(c.Key, path)
	}
	return f, err
}

func (f *files) close() error {
	if f.bolt == nil {
		return nil
	}
	return f.bolt.Close()
}

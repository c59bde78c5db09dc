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
	if err := checkLog(path); err != nil {
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
	return f, f.seal(c.Key, path)
}

func (f *files) close() error {
	if f.bolt == nil {
		return nil
	}
	return f.bolt.Close()
}

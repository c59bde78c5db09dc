package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"
	"golang.org/x/crypto/chacha20poly1305"
)

// keyMark stands in the log's file where the folder is encrypted: nothing,
// sealed with its key. A folder that is opened with another key, or with none,
// is told from a damaged one, before anything is read as what it isn't.
var keyMark = []byte("orch-sealed")

// wrongKey says why a log can't be read with key; "" if it can. The buckets'
// names are raft-boltdb's.
func wrongKey(tx *bbolt.Tx, key []byte) string {
	conf, logs := tx.Bucket([]byte("conf")), tx.Bucket([]byte("logs"))
	if conf == nil || logs == nil {
		return "" // nobody has begun it yet
	}
	mark := conf.Get(keyMark)
	first, _ := logs.Cursor().First()
	begun := first != nil || len(bytes.Trim(conf.Get([]byte("CurrentTerm")), "\x00")) > 0
	switch {
	case key == nil && mark != nil:
		return "is encrypted, and no key was given"
	case key == nil:
		return ""
	case mark == nil && begun:
		return "is not encrypted, and a key was given"
	case mark == nil:
		return ""
	}
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		return err.Error()
	}
	if _, err := (&sealedLog{aead: aead}).open(&raft.Log{}, sealedData, mark); err != nil {
		return "can't be decrypted: it is of another key"
	}
	return ""
}

// cachedLogs entries needn't be decrypted again.
const cachedLogs = 128

// seal lets all that is written from now on be encrypted with key. The log's
// file, at path, is new or was encrypted with it before.
func (f *files) seal(key []byte, path string) error {
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		return fmt.Errorf("cannot encrypt the raft log %s: %w", path, err)
	}
	if _, err := f.stable.Get(keyMark); err != nil { // raft-boltdb's "not found"
		mark := (&sealedLog{aead: aead}).seal(&raft.Log{}, sealedData, nil)
		if err := f.stable.Set(keyMark, mark); err != nil {
			return fmt.Errorf("cannot write the raft log %s: %w", path, err)
		}
	}
	// What was written just now is read soon, to be sent to followers.
	f.logs, err = raft.NewLogCache(cachedLogs, &sealedLog{f.logs, aead, path})
	f.snaps = &sealedSnapshots{f.snaps, aead, filepath.Join(filepath.Dir(path), "snapshots")}
	return err
}

// why says what is wrong with the newest snapshot, if anything: raft itself
// only says that it could use none.
func (f *files) why() error {
	all, err := f.snaps.List()
	if err != nil || len(all) == 0 {
		return err
	}
	_, r, err := f.snaps.Open(all[0].ID)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, r)
	return errors.Join(err, r.Close())
}

package store

import (
	"crypto/cipher"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/hashicorp/raft"
	"golang.org/x/crypto/chacha20poly1305"
)

// keyMark stands in the log's file where the folder is encrypted: nothing,
// sealed with its key. A folder that is opened with another key, or with none,
// is told from a damaged one, before anything is read as what it isn't.
var keyMark = []byte("orch-sealed")

// seal lets all that is written from now on be encrypted with key, or nothing
// if it is nil, as it must be the first time already.
func (f *files) seal(key []byte, path string) error {
	mark, err := f.stable.Get(keyMark)
	if err != nil && err.Error() != "not found" {
		return fmt.Errorf("cannot read the raft log %s: %w", path, err)
	}
	if key == nil {
		if mark != nil {
			return fmt.Errorf("the raft log %s is encrypted, and no key was given", path)
		}
		return nil
	}
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		return fmt.Errorf("cannot encrypt the raft log %s: %w", path, err)
	}
	if mark == nil {
		err = f.mark(aead, path)
	} else if !opens(aead, mark) {
		err = fmt.Errorf("the raft log %s can't be decrypted: it is of another key; nothing was changed", path)
	}
	if err != nil {
		return err
	}
	// What was written just now is read soon, to be sent to followers.
	f.logs, err = raft.NewLogCache(cachedLogs, &sealedLog{f.logs, aead, path})
	f.snaps = &sealedSnapshots{f.snaps, aead, filepath.Join(filepath.Dir(path), "snapshots")}
	return err
}

// cachedLogs entries needn't be decrypted again.
const cachedLogs = 128

// mark begins to encrypt a folder that holds nothing yet.
func (f *files) mark(aead cipher.AEAD, path string) error {
	last, err := f.logs.LastIndex()
	if err != nil {
		return fmt.Errorf("cannot read the raft log %s: %w", path, err)
	}
	if term, _ := f.stable.GetUint64([]byte("CurrentTerm")); term > 0 || last > 0 {
		return fmt.Errorf("the raft log %s is not encrypted, and a key was given; nothing was changed", path)
	}
	sealed := (&sealedLog{aead: aead}).seal(&raft.Log{}, sealedData, nil)
	if err := f.stable.Set(keyMark, sealed); err != nil {
		return fmt.Errorf("cannot write the raft log %s: %w", path, err)
	}
	return nil
}

func opens(aead cipher.AEAD, mark []byte) bool {
	_, err := (&sealedLog{aead: aead}).open(&raft.Log{}, sealedData, mark)
	return err == nil
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

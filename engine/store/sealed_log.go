package store

import (
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"fmt"

	"github.com/hashicorp/raft"
	"golang.org/x/crypto/chacha20poly1305"
)

// sealedLog encrypts what entries hold before they are written. Data and
// Extensions become
//
//	1 byte   1, the format
//	24 bytes a random nonce
//	         XChaCha20-Poly1305 of the plain text and its tag, 16 bytes
//
// with index, term, type and field as associated data, so that no entry can
// be passed off as another. What is empty stays so.
type sealedLog struct {
	raft.LogStore
	aead cipher.AEAD
}

func newSealedLog(logs raft.LogStore, key []byte) (*sealedLog, error) {
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		return nil, fmt.Errorf("cannot encrypt the raft log: %w", err)
	}
	return &sealedLog{logs, aead}, nil
}

const sealedFormat = 1

// The fields of an entry that are sealed.
const (
	sealedData byte = iota
	sealedExtensions
)

func about(l *raft.Log, field byte) []byte {
	b := make([]byte, 0, 18)
	b = binary.BigEndian.AppendUint64(b, l.Index)
	b = binary.BigEndian.AppendUint64(b, l.Term)
	return append(b, byte(l.Type), field)
}

func (s *sealedLog) seal(l *raft.Log, field byte, plain []byte) ([]byte, error) {
	if len(plain) == 0 {
		return plain, nil
	}
	n := s.aead.NonceSize()
	out := make([]byte, 1+n, 1+n+len(plain)+s.aead.Overhead())
	out[0] = sealedFormat
	if _, err := rand.Read(out[1:]); err != nil {
		return nil, err
	}
	return s.aead.Seal(out, out[1:], plain, about(l, field)), nil
}

func (s *sealedLog) open(l *raft.Log, field byte, sealed []byte) ([]byte, error) {
	if len(sealed) == 0 {
		return sealed, nil
	}
	n := s.aead.NonceSize()
	if len(sealed) < 1+n || sealed[0] != sealedFormat {
		return nil, fmt.Errorf("entry %d of the raft log is not encrypted as this orch does it", l.Index)
	}
	plain, err := s.aead.Open(nil, sealed[1:1+n], sealed[1+n:], about(l, field))
	if err != nil {
		return nil, fmt.Errorf("entry %d of the raft log can't be decrypted: it is damaged, or of another key", l.Index)
	}
	return plain, nil
}

// GetLog and those below are raft.LogStore's.
func (s *sealedLog) GetLog(index uint64, l *raft.Log) error {
	err := s.LogStore.GetLog(index, l)
	if err != nil {
		return err
	}
	if l.Data, err = s.open(l, sealedData, l.Data); err != nil {
		return err
	}
	l.Extensions, err = s.open(l, sealedExtensions, l.Extensions)
	return err
}

func (s *sealedLog) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

func (s *sealedLog) StoreLogs(logs []*raft.Log) error {
	sealed := make([]*raft.Log, len(logs))
	for i, l := range logs {
		c := *l // raft goes on with the plain one
		var err error
		if c.Data, err = s.seal(l, sealedData, l.Data); err != nil {
			return err
		}
		if c.Extensions, err = s.seal(l, sealedExtensions, l.Extensions); err != nil {
			return err
		}
		sealed[i] = &c
	}
	return s.LogStore.StoreLogs(sealed)
}

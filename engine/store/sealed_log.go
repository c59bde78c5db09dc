package store

import (
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"fmt"

	"github.com/hashicorp/raft"
)

// sealedLog encrypts what entries hold before they are written. Data, and
// Extensions where there are any, become
//
//	1 byte   1, the format
//	24 bytes a random nonce
//	         XChaCha20-Poly1305 of the plain text and its tag, 16 bytes
//
// with index (8 bytes, big-endian), term (8), type, field and whether there
// are Extensions (a byte each) as associated data, so that no entry can be
// passed off as another.
type sealedLog struct {
	raft.LogStore
	aead cipher.AEAD
	path string
}

const sealedFormat = 1

// The fields of an entry that are sealed.
const (
	sealedData byte = iota
	sealedExtensions
)

func about(l *raft.Log, field byte) []byte {
	b := make([]byte, 0, 19)
	b = binary.BigEndian.AppendUint64(b, l.Index)
	b = binary.BigEndian.AppendUint64(b, l.Term)
	extended := byte(0)
	if len(l.Extensions) > 0 {
		extended = 1
	}
	return append(b, byte(l.Type), field, extended)
}

func (s *sealedLog) seal(l *raft.Log, field byte, plain []byte) []byte {
	n := s.aead.NonceSize()
	out := make([]byte, 1+n, 1+n+len(plain)+s.aead.Overhead())
	out[0] = sealedFormat
	rand.Read(out[1:]) // never fails: crypto/rand ends the process instead
	return s.aead.Seal(out, out[1:], plain, about(l, field))
}

func (s *sealedLog) open(l *raft.Log, field byte, sealed []byte) ([]byte, error) {
	n := s.aead.NonceSize()
	if len(sealed) < 1+n || sealed[0] != sealedFormat {
		return nil, fmt.Errorf("entry %d of the raft log %s is not encrypted as this orch does it", l.Index, s.path)
	}
	plain, err := s.aead.Open(nil, sealed[1:1+n], sealed[1+n:], about(l, field))
	if err != nil {
		return nil, fmt.Errorf("entry %d of the raft log %s can't be decrypted: it is damaged, or of another key", l.Index, s.path)
	}
	return plain, nil
}

// GetLog and those below are raft.LogStore's.
func (s *sealedLog) GetLog(index uint64, to *raft.Log) error {
	var l raft.Log
	if err := s.LogStore.GetLog(index, &l); err != nil {
		return err
	}
	data, err := s.open(&l, sealedData, l.Data)
	if err != nil {
		return err
	}
	var extensions []byte
	if len(l.Extensions) > 0 {
		if extensions, err = s.open(&l, sealedExtensions, l.Extensions); err != nil {
			return err
		}
	}
	l.Data, l.Extensions = data, extensions
	*to = l
	return nil
}

func (s *sealedLog) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

func (s *sealedLog) StoreLogs(logs []*raft.Log) error {
	sealed := make([]*raft.Log, len(logs))
	for i, l := range logs {
		c := *l // raft goes on with the plain one
		c.Data = s.seal(l, sealedData, l.Data)
		if len(l.Extensions) > 0 {
			c.Extensions = s.seal(l, sealedExtensions, l.Extensions)
		}
		sealed[i] = &c
	}
	return s.LogStore.StoreLogs(sealed)
}

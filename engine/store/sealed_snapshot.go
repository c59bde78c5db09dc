package store

import (
	"bufio"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/hashicorp/raft"
	"golang.org/x/crypto/chacha20poly1305"
)

// A sealed snapshot is
//
//	8 bytes  "orchseal"
//	19 bytes a random prefix of the nonces
//	         chunks of 64 KiB of plain text, the last one shorter or empty,
//	         each XChaCha20-Poly1305 with its tag, 16 bytes
//
// The nonce of a chunk is the prefix, its number (4 bytes, big-endian), and 1
// for the last chunk, else 0: chunks can't be left out, swapped or cut off.
// The snapshot's index and term (8 bytes each, big-endian) are associated data.
// Only an empty text has an empty chunk, so that sizes follow from each other.
// This is the STREAM construction of Hoang, Reyhanitabar, Rogaway and Vizár,
// "Online Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance"
// (2015).
const (
	sealMagic  = "orchseal"
	sealPrefix = chacha20poly1305.NonceSizeX - 5
	sealChunk  = 64 << 10
	sealTag    = 16
)

// sealedSnapshots encrypts what another store of snapshots keeps. Sizes that
// it tells are those of the plain text: raft sends as many bytes.
type sealedSnapshots struct {
	raft.SnapshotStore
	aead cipher.AEAD
	path string
}

// plainSize of a sealed snapshot of n bytes.
func plainSize(n int64) int64 {
	n -= int64(len(sealMagic)) + sealPrefix
	chunks := (n + sealChunk + sealTag - 1) / (sealChunk + sealTag)
	return max(n-chunks*sealTag, 0)
}

// Create and those below are raft.SnapshotStore's.
func (s *sealedSnapshots) Create(version raft.SnapshotVersion, index, term uint64, c raft.Configuration, configIndex uint64, t raft.Transport) (raft.SnapshotSink, error) {
	sink, err := s.SnapshotStore.Create(version, index, term, c, configIndex, t)
	if err != nil {
		return nil, err
	}
	out := &sealedSink{SnapshotSink: sink, chunks: newChunks(s.aead, index, term), buf: make([]byte, 0, sealChunk)}
	rand.Read(out.chunks.nonce[:sealPrefix]) // never fails
	if _, err := sink.Write(append([]byte(sealMagic), out.chunks.nonce[:sealPrefix]...)); err != nil {
		return nil, errors.Join(err, sink.Cancel())
	}
	return out, nil
}

func (s *sealedSnapshots) List() ([]*raft.SnapshotMeta, error) {
	all, err := s.SnapshotStore.List()
	for i, m := range all {
		c := *m
		c.Size = plainSize(m.Size)
		all[i] = &c
	}
	return all, err
}

func (s *sealedSnapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	m, r, err := s.SnapshotStore.Open(id)
	if err != nil {
		return nil, nil, err
	}
	where := filepath.Join(s.path, id, "state.bin")
	head := make([]byte, len(sealMagic)+sealPrefix)
	if _, err := io.ReadFull(r, head); err != nil || string(head[:len(sealMagic)]) != sealMagic {
		return nil, nil, errors.Join(fmt.Errorf("the snapshot %s is not encrypted as this orch does it", where), r.Close())
	}
	in := &sealedReader{where: where, from: bufio.NewReaderSize(r, sealChunk+sealTag), close: r.Close, chunks: newChunks(s.aead, m.Index, m.Term)}
	copy(in.chunks.nonce, head[len(sealMagic):])
	c := *m
	c.Size = plainSize(m.Size)
	return &c, in, nil
}

// chunks are those of one snapshot, in their order.
type chunks struct {
	aead   cipher.AEAD
	nonce  []byte
	number uint32
	about  []byte
}

func newChunks(aead cipher.AEAD, index, term uint64) chunks {
	about := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, index), term)
	return chunks{aead: aead, nonce: make([]byte, aead.NonceSize()), about: about}
}

// next is the nonce of the next chunk.
func (c *chunks) next(last bool) []byte {
	binary.BigEndian.PutUint32(c.nonce[sealPrefix:], c.number)
	c.nonce[sealPrefix+4] = 0
	if last {
		c.nonce[sealPrefix+4] = 1
	}
	c.number++
	return c.nonce
}

type sealedSink struct {
	raft.SnapshotSink
	chunks
	buf []byte // plain text of the chunk under way
	out []byte
}

func (s *sealedSink) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		if len(s.buf) == sealChunk { // more comes: it isn't the last
			if err := s.flush(false); err != nil {
				return written, err
			}
		}
		n := min(len(p), sealChunk-len(s.buf))
		s.buf = append(s.buf, p[:n]...)
		p, written = p[n:], written+n
	}
	return written, nil
}

func (s *sealedSink) flush(last bool) error {
	s.out = s.aead.Seal(s.out[:0], s.next(last), s.buf, s.about)
	s.buf = s.buf[:0]
	_, err := s.SnapshotSink.Write(s.out)
	return err
}

func (s *sealedSink) Close() error {
	if err := s.flush(true); err != nil {
		return errors.Join(err, s.SnapshotSink.Cancel())
	}
	return s.SnapshotSink.Close()
}

type sealedReader struct {
	chunks
	where string
	from  *bufio.Reader
	close func() error
	chunk []byte
	plain []byte // not read yet
	ended bool
}

func (r *sealedReader) Read(p []byte) (int, error) {
	for len(r.plain) == 0 {
		if r.ended {
			return 0, io.EOF
		}
		if err := r.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.plain)
	r.plain = r.plain[n:]
	return n, nil
}

func (r *sealedReader) fill() error {
	if r.chunk == nil {
		r.chunk = make([]byte, sealChunk+sealTag)
	}
	n, err := io.ReadFull(r.from, r.chunk)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return err
	}
	_, more := r.from.Peek(1)
	r.ended = more != nil
	if r.plain, err = r.aead.Open(r.chunk[:0], r.next(r.ended), r.chunk[:n], r.about); err != nil {
		return fmt.Errorf("the snapshot %s can't be decrypted: it is damaged, or of another key", r.where)
	}
	return nil
}

func (r *sealedReader) Close() error { return r.close() }

package state

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/hashicorp/go-memdb"
	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/proto"

	"orch/engine/api"
)

// A snapshot is, in this order: eight bytes of magic, a length-delimited
// SnapshotHeader, length-delimited Records, an empty Record, and the CRC-32C
// of all before it, big-endian.
const (
	snapshotMagic  = "orchsnap"
	snapshotFormat = 1
	maxRecord      = 256 << 20
)

// marshal is deterministic, so that equal states have equal snapshots.
var marshal = protodelim.MarshalOptions{MarshalOptions: proto.MarshalOptions{Deterministic: true}}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// WriteSnapshot writes the view.
func (v View) WriteSnapshot(to io.Writer) error {
	sum := crc32.New(castagnoli)
	out := bufio.NewWriterSize(io.MultiWriter(to, sum), 64<<10)
	if _, err := out.WriteString(snapshotMagic); err != nil {
		return err
	}
	if _, err := marshal.MarshalTo(out, &api.SnapshotHeader{Format: snapshotFormat, Index: v.index}); err != nil {
		return err
	}
	for _, t := range []string{clusterTable, nodeTable, stackTable, releaseTable, serviceTable, versionTable, slotTable, taskTable, rolloutTable, secretTable, bundleTable, tokenTable, operatorTable, networkTable} {
		rows, err := v.txn.Get(t, idIndex+"_prefix", "")
		if err != nil {
			return err
		}
		for row := rows.Next(); row != nil; row = rows.Next() {
			if _, err := marshal.MarshalTo(out, record(row)); err != nil {
				return err
			}
		}
	}
	if _, err := marshal.MarshalTo(out, &api.Record{}); err != nil {
		return err
	}
	if err := out.Flush(); err != nil {
		return err
	}
	_, err := to.Write(sum.Sum(nil))
	return err
}

// Restore replaces all rows by a snapshot's. On an error the state stays.
func (s *State) Restore(from io.Reader) error {
	sum := crc32.New(castagnoli)
	in := &summing{r: bufio.NewReaderSize(from, 64<<10), sum: sum}
	magic := make([]byte, len(snapshotMagic))
	if _, err := io.ReadFull(in, magic); err != nil || string(magic) != snapshotMagic {
		return errors.New("not a snapshot of orch")
	}
	header := &api.SnapshotHeader{}
	var buf bytes.Buffer
	if err := in.message(&buf, header); err != nil {
		return fmt.Errorf("cannot read the snapshot's header: %w", err)
	}
	if header.Format != snapshotFormat {
		return fmt.Errorf("the snapshot has format %d; this engine reads %d", header.Format, snapshotFormat)
	}
	db := empty()
	txn := db.Txn(true)
	defer txn.Abort()
	for {
		rec := &api.Record{}
		if err := in.message(&buf, rec); err != nil {
			return fmt.Errorf("the snapshot is damaged: %w", err)
		}
		if rec.Row == nil {
			break
		}
		if err := insert(txn, rec); err != nil {
			return fmt.Errorf("the snapshot is damaged: %w", err)
		}
	}
	want := sum.Sum(nil)
	got := make([]byte, 4)
	if _, err := io.ReadFull(in.r, got); err != nil || string(got) != string(want) {
		return errors.New("the snapshot is damaged: its checksum doesn't match")
	}
	txn.Commit()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.db, s.index = db, header.Index
	return nil
}

type summing struct {
	r   *bufio.Reader
	sum io.Writer
}

func (s *summing) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.sum.Write(p[:n])
	return n, err
}

func (s *summing) ReadByte() (byte, error) {
	b, err := s.r.ReadByte()
	if err == nil {
		s.sum.Write([]byte{b})
	}
	return b, err
}

// message reads a length-delimited message. A damaged length takes no more
// memory than there is left to read.
func (s *summing) message(buf *bytes.Buffer, m proto.Message) error {
	size, err := binary.ReadUvarint(s)
	if err != nil {
		return noEOF(err)
	}
	if size > maxRecord {
		return fmt.Errorf("a record of %d bytes", size)
	}
	buf.Reset()
	if _, err := io.CopyN(buf, s, int64(size)); err != nil {
		return noEOF(err)
	}
	return proto.Unmarshal(buf.Bytes(), m)
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func record(row any) *api.Record {
	switch r := row.(type) {
	case *api.Cluster:
		return &api.Record{Row: &api.Record_Cluster{Cluster: r}}
	case *api.Node:
		return &api.Record{Row: &api.Record_Node{Node: r}}
	case *api.Stack:
		return &api.Record{Row: &api.Record_Stack{Stack: r}}
	case *api.Release:
		return &api.Record{Row: &api.Record_Release{Release: r}}
	case *api.Service:
		return &api.Record{Row: &api.Record_Service{Service: r}}
	case *api.Version:
		return &api.Record{Row: &api.Record_Version{Version: r}}
	case *api.Slot:
		return &api.Record{Row: &api.Record_Slot{Slot: r}}
	case *api.Task:
		return &api.Record{Row: &api.Record_Task{Task: r}}
	case *api.Rollout:
		return &api.Record{Row: &api.Record_Rollout{Rollout: r}}
	case *api.SecretValue:
		return &api.Record{Row: &api.Record_Secret{Secret: r}}
	case *api.Bundle:
		return &api.Record{Row: &api.Record_Bundle{Bundle: r}}
	case *api.JoinToken:
		return &api.Record{Row: &api.Record_Token{Token: r}}
	case *api.Operator:
		return &api.Record{Row: &api.Record_Operator{Operator: r}}
	case *api.Network:
		return &api.Record{Row: &api.Record_Network{Network: r}}
	}
	panic(fmt.Sprintf("no record for %T", row))
}

func insert(txn *memdb.Txn, rec *api.Record) error {
	switch r := rec.Row.(type) {
	case *api.Record_Cluster:
		return txn.Insert(clusterTable, r.Cluster)
	case *api.Record_Node:
		return txn.Insert(nodeTable, r.Node)
	case *api.Record_Stack:
		return txn.Insert(stackTable, r.Stack)
	case *api.Record_Release:
		return txn.Insert(releaseTable, r.Release)
	case *api.Record_Service:
		return txn.Insert(serviceTable, r.Service)
	case *api.Record_Version:
		return txn.Insert(versionTable, r.Version)
	case *api.Record_Slot:
		return txn.Insert(slotTable, r.Slot)
	case *api.Record_Task:
		return txn.Insert(taskTable, r.Task)
	case *api.Record_Rollout:
		return txn.Insert(rolloutTable, r.Rollout)
	case *api.Record_Secret:
		return txn.Insert(secretTable, r.Secret)
	case *api.Record_Bundle:
		return txn.Insert(bundleTable, r.Bundle)
	case *api.Record_Token:
		return txn.Insert(tokenTable, r.Token)
	case *api.Record_Operator:
		return txn.Insert(operatorTable, r.Operator)
	case *api.Record_Network:
		return txn.Insert(networkTable, r.Network)
	}
	return fmt.Errorf("unknown record %T", rec.Row)
}

// Package backup writes all that a cluster needs to be made again into one
// stream, and reads it. The stream is a line of JSON, the Header, and then
// the state as a snapshot (see package state). It holds the data key, and so
// the cluster's secrets and its CA: keep it as you would keep those.
package backup

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"orch/engine/seal"
	"orch/engine/state"
)

// Header begins a backup.
type Header struct {
	Format    int       `json:"orch_backup"`
	ClusterID string    `json:"cluster_id"`
	Cluster   string    `json:"cluster"`
	Index     uint64    `json:"index"` // of the newest log entry in it
	CreatedAt time.Time `json:"created_at"`
	Version   string    `json:"version"` // of orch
	DataKey   []byte    `json:"data_key"`
}

const format = 1

// Write writes the state.
func Write(w io.Writer, v state.View, key seal.Key, version string) error {
	h := Header{format, v.Cluster().GetId(), v.Cluster().GetName(), v.Index(), time.Now().UTC(), version, key[:]}
	if err := json.NewEncoder(w).Encode(h); err != nil {
		return err
	}
	return v.WriteSnapshot(w)
}

// Read is the inverse of Write. What it returns is checked to be whole.
func Read(r io.Reader) (Header, *state.State, error) {
	in := bufio.NewReader(r)
	line, err := in.ReadBytes('\n')
	h := Header{}
	if err != nil || json.Unmarshal(line, &h) != nil || h.Format == 0 {
		return h, nil, fmt.Errorf("this is no backup of orch")
	}
	if h.Format != format {
		return h, nil, fmt.Errorf("the backup has format %d; this orch reads %d: use a newer orch", h.Format, format)
	}
	if _, err := seal.KeyOf(h.DataKey); err != nil {
		return h, nil, fmt.Errorf("the backup is damaged: %w", err)
	}
	s := state.New()
	if err := s.Restore(in); err != nil {
		return h, nil, fmt.Errorf("the backup can't be read: %w", err)
	}
	return h, s, nil
}

package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"
)

// checkLog finds out whether the log's file is whole before anything maps
// it: a file that is shorter than what its newest transaction used would
// kill the process on the first read. (bbolt itself falls back to the
// transaction before when the newest was torn while it was written.) And
// whether key is the one that it was begun with; nil: none.
func checkLog(path string, key []byte) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("cannot read the raft log: %w", err)
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	if errors.Is(err, bbolterrors.ErrTimeout) {
		return fmt.Errorf("the raft log %s is in use by another orch", path)
	}
	if err != nil {
		return fmt.Errorf("the raft log %s is damaged (%w): nothing was changed; restore the folder from a backup, or move it away to begin anew", path, err)
	}
	defer db.Close()
	return db.View(func(tx *bbolt.Tx) error {
		if tx.Size() > info.Size() {
			return fmt.Errorf("the raft log %s is cut short (%d of %d bytes): nothing was changed; restore the folder from a backup, or move it away to begin anew", path, info.Size(), tx.Size())
		}
		if wrong := wrongKey(tx, key); wrong != "" {
			return fmt.Errorf("the raft log %s %s: nothing was changed", path, wrong)
		}
		return nil
	})
}

// raftLogger passes raft's own words on; its debug and info lines are no
// operator's business.
func raftLogger(to *slog.Logger) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{
		Name: "raft", Level: hclog.Warn, Output: lines{to}, DisableTime: true,
	})
}

type lines struct{ to *slog.Logger }

func (l lines) Write(p []byte) (int, error) {
	text := bytes.TrimSpace(p)
	level := slog.LevelWarn
	if bytes.HasPrefix(text, []byte("[ERROR]")) {
		level = slog.LevelError
	}
	for _, usual := range []string{"starting election", "use of closed network connection", "failed to get previous log", "appendEntries rejected, sending older logs"} {
		if bytes.Contains(text, []byte(usual)) {
			level = slog.LevelDebug // how engines begin, end and catch up
		}
	}
	if _, rest, ok := bytes.Cut(text, []byte("] ")); ok {
		text = bytes.TrimSpace(rest)
	}
	l.to.Log(context.Background(), level, string(text))
	return len(p), nil
}

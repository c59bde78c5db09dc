package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"sync"
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
// operator's business, nor is what it said of the same engine a moment ago:
// of one that is away it speaks four times a second.
func raftLogger(to *slog.Logger) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{
		Name: "raft", Level: hclog.Warn, Output: &lines{to: to, said: map[string]time.Time{}}, DisableTime: true,
	})
}

// sayAgain after so long what was said already.
const sayAgain = time.Minute

type lines struct {
	to   *slog.Logger
	mu   sync.Mutex
	said map[string]time.Time
}

// again says whether the like of a line was written less than sayAgain ago.
func (l *lines) again(text []byte) bool {
	about := subject.Find(text)
	what, _, _ := bytes.Cut(text, []byte(": ")) // "raft"
	if rest := text[min(len(what)+2, len(text)):]; len(rest) > 0 {
		what, _, _ = bytes.Cut(rest, []byte(": "))
	}
	key, now := string(what)+" "+string(about), time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	for k, at := range l.said {
		if now.Sub(at) >= sayAgain {
			delete(l.said, k)
		}
	}
	_, known := l.said[key]
	if !known {
		l.said[key] = now
	}
	return known
}

// subject is the engine that a line speaks of.
var subject = regexp.MustCompile(`(peer|target|from|candidate)=("[^"]*"|\{[^}]*\}|\S+)`)

func (l *lines) Write(p []byte) (int, error) {
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
	if level > slog.LevelDebug && l.again(text) {
		level = slog.LevelDebug
	}
	l.to.Log(context.Background(), level, string(text))
	return len(p), nil
}

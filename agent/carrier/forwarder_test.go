package carrier

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"

	"orch/agent/sockets"
)

func newForwarder(t *testing.T, dir string) *forwarder {
	t.Helper()
	return &forwarder{sockets: &sockets.Set{}, log: slog.New(&hub{}), file: filepath.Join(dir, "forwarded.json")}
}

func (f *forwarder) at() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.conn == nil {
		return ""
	}
	return f.conn.LocalAddr().String()
}

// It listens from when it is needed, and says why where it can't, until it can.
func TestForwarderListens(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	taken, err := net.ListenUDP("udp", &net.UDPAddr{})
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := uint32(taken.LocalAddr().(*net.UDPAddr).Port)
	keys := []string{base64.StdEncoding.EncodeToString(make([]byte, 32)), "nonsense"}
	f := newForwarder(t, t.TempDir())
	f.serve(ctx, port, nil)
	if f.at() != "" || f.trouble() != "" {
		t.Errorf("nobody needs it: at %q, %q", f.at(), f.trouble())
	}
	f.serve(ctx, port, keys)
	if f.at() != "" || f.trouble() == "" {
		t.Errorf("its port is taken: at %q, %q", f.at(), f.trouble())
	}
	taken.Close()
	f.again(ctx)
	if f.at() != fmt.Sprintf("[::]:%d", port) || f.trouble() != "" {
		t.Errorf("its port is free again: at %q, %q", f.at(), f.trouble())
	}
	f.end()
	f.serve(ctx, port, keys)
	f.again(ctx)
	again, err := net.ListenUDP("udp", &net.UDPAddr{Port: int(port)})
	if err != nil {
		t.Errorf("it has ended: %v", err)
	} else {
		again.Close()
	}
}

// What it knows goes to its successor once; what is damaged keeps nobody from
// starting.
func TestForwarderHandsOver(t *testing.T) {
	dir := t.TempDir()
	before := newForwarder(t, dir)
	before.write()
	next := newForwarder(t, dir)
	next.read()
	if next.relay != nil {
		t.Error("nothing was known")
	}
	before.serve(t.Context(), 0, []string{base64.StdEncoding.EncodeToString(make([]byte, 32))})
	before.write()
	next.read()
	if next.relay == nil {
		t.Error("it didn't get what is known")
	}
	last := newForwarder(t, dir)
	last.read()
	if last.relay != nil {
		t.Error("that was for another one")
	}
	if err := os.WriteFile(last.file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	last.read()
	last.serve(t.Context(), 0, nil)
	if _, err := os.Stat(last.file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what is damaged is still there: %v", err)
	}
}

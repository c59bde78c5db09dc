package store

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

type plainLayer struct{ net.Listener }

func (plainLayer) Dial(to raft.ServerAddress, within time.Duration) (net.Conn, error) {
	c, err := net.DialTimeout("tcp", string(to), within)
	if err != nil {
		err = errors.Join(errDial, err)
	}
	return c, err
}

func listen(t *testing.T, address string) *transport {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return newTransport(raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: plainLayer{l}, MaxPool: maxPool, Timeout: answerWithin, Logger: raftLogger(slog.New(slog.DiscardHandler)),
	}), "")
}

// grant gives every vote until the transport ends; it waits until as many
// are asked for at once as it is told.
func grant(tr *transport, together int) {
	for {
		var asked []raft.RPC
		for len(asked) < together {
			select {
			case rpc := <-tr.Consumer():
				asked = append(asked, rpc)
			case <-tr.end:
				return
			}
		}
		for _, rpc := range asked {
			rpc.Respond(&raft.RequestVoteResponse{Granted: true}, nil)
		}
	}
}

// All connections that a voter keeps to another may have died with that
// other's last process: the first vote it is asked for counts all the same.
func TestVoteOverDeadConnections(t *testing.T) {
	here, there := listen(t, "127.0.0.1:0"), listen(t, "127.83.7.5:0")
	defer func() {
		here.CloseStreams()
		here.Close()
	}()
	to := there.LocalAddr()
	vote := func() error {
		var a raft.RequestVoteResponse
		err := here.RequestVote("b", to, &raft.RequestVoteRequest{}, &a)
		if err == nil && !a.Granted {
			err = errors.New("not granted")
		}
		return err
	}
	go grant(there, maxPool)
	errs := make(chan error, maxPool)
	for range maxPool {
		go func() { errs <- vote() }()
	}
	for range maxPool {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	there.Close()
	next := listen(t, string(to))
	go grant(next, 1)
	if err := vote(); err != nil {
		t.Errorf("its next process: %v", err)
	}
	here.CloseStreams()
	next.Close()
	if err := vote(); !errors.Is(err, errDial) {
		t.Errorf("nobody listens: %v", err)
	}
}

// Entries wait for an engine that is away, until it answers a heartbeat.
func TestEntriesWaitForHeartbeats(t *testing.T) {
	here, there := listen(t, "127.0.0.1:0"), listen(t, "127.83.7.6:0")
	to := there.LocalAddr()
	there.Close()
	defer func() {
		here.CloseStreams()
		here.Close()
	}()
	beat := func() error {
		return here.AppendEntries("b", to, &raft.AppendEntriesRequest{Term: 7}, &raft.AppendEntriesResponse{})
	}
	entries := func(term uint64) error {
		return here.AppendEntries("b", to, &raft.AppendEntriesRequest{Term: term, PrevLogEntry: 1, PrevLogTerm: 1}, &raft.AppendEntriesResponse{})
	}
	if err := beat(); !errors.Is(err, errDial) {
		t.Errorf("nobody listens: %v", err)
	}
	if err := entries(8); !errors.Is(err, errDial) {
		t.Errorf("another leadership doesn't know that yet: %v", err)
	}
	_ = beat()
	waits := make(chan error)
	go func() { waits <- entries(7) }()
	select {
	case err := <-waits:
		t.Fatalf("entries were tried: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	next := listen(t, string(to))
	defer next.Close()
	answering := make(chan struct{})
	go func() {
		defer close(answering)
		for range 2 {
			rpc := <-next.Consumer()
			rpc.Respond(&raft.AppendEntriesResponse{Success: true}, nil)
		}
	}()
	if err := beat(); err != nil {
		t.Error(err)
	}
	if err := <-waits; err != nil {
		t.Errorf("it is back: %v", err)
	}
	<-answering
	if !here.hears("b", time.Minute) {
		t.Error("it isn't heard")
	}
}

// Of an engine that is away raft speaks on and on; operators hear it once.
func TestRaftRepeatsItself(t *testing.T) {
	var out bytes.Buffer
	log := raftLogger(slog.New(slog.NewTextHandler(&out, nil)))
	for range 5 {
		log.Error("failed to heartbeat to", "peer", "10.0.0.1:7", "backoff time", time.Second, "error", errAway)
		log.Error("failed to heartbeat to", "peer", "10.0.0.2:7", "backoff time", time.Minute, "error", errAway)
		log.Error("failed to make requestVote RPC", "target", raft.Server{ID: "b"}, "term", 7)
		log.Warn("failed to contact quorum of nodes, stepping down")
	}
	if n := strings.Count(out.String(), "\n"); n != 4 {
		t.Errorf("%d lines:\n%s", n, out.String())
	}
}

// Only what died while it was idle is asked again.
func TestAgain(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		asks int
	}{
		"an answer":        {nil, 1},
		"no way":           {errors.Join(errDial, errors.New("refused")), 1},
		"too slow":         {&net.DNSError{IsTimeout: true}, 1},
		"a broken request": {net.ErrClosed, maxPool + 1},
	} {
		n := 0
		if err := again(func() error { n++; return c.err }); !errors.Is(err, c.err) || n != c.asks {
			t.Errorf("%s: asked %d times, want %d; %v", name, n, c.asks, err)
		}
	}
}

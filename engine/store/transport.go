package store

import (
	"errors"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// dialWithin is how long a connection may take to come about. A host that
	// is cut off doesn't answer at all, and once it is back the next attempt
	// must not wait for the one before.
	dialWithin = time.Second
	// answerWithin is how long a request to another engine may take; snapshots
	// get as much for each 256 KiB.
	answerWithin = 3 * time.Second
	// maxPool connections to each engine are kept: heartbeats, entries, votes.
	maxPool = 3
)

// transport is raft's network with three things of its own: raft here can be
// told to stand for election at once, a vote isn't lost to a connection that
// died while it was idle, and it is known which engines answer.
type transport struct {
	*raft.NetworkTransport
	address raft.ServerAddress
	rpcs    chan raft.RPC
	end     chan struct{}
	once    sync.Once
	passing sync.WaitGroup

	mu    sync.Mutex
	heard map[raft.ServerID]time.Time // last answer to a heartbeat or an entry
}

func newTransport(t *raft.NetworkTransport, address string) *transport {
	tr := &transport{
		NetworkTransport: t, address: raft.ServerAddress(address),
		rpcs: make(chan raft.RPC), end: make(chan struct{}), heard: map[raft.ServerID]time.Time{},
	}
	if address == "" {
		tr.address = t.LocalAddr()
	}
	tr.passing.Go(func() {
		for {
			select {
			case rpc := <-t.Consumer():
				tr.hand(rpc)
			case <-tr.end:
				return
			}
		}
	})
	return tr
}

// hand gives raft a request.
func (t *transport) hand(rpc raft.RPC) {
	select {
	case t.rpcs <- rpc:
	case <-t.end:
	}
}

// stand makes the raft of id a candidate, as a leader that hands over does:
// a lone voter has nobody to wait for. (Shorter timers would do it too, but
// raft can't lengthen the leader's lease again when a second voter joins.)
func (t *transport) stand(id raft.ServerID) {
	answer := make(chan raft.RPCResponse, 1)
	t.hand(raft.RPC{RespChan: answer, Command: &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{
		ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(id), Addr: []byte(t.address),
	}}})
	select {
	case <-answer:
	case <-t.end:
	}
}

// hears says whether an engine answered within d.
func (t *transport) hears(id raft.ServerID, d time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	at, ok := t.heard[id]
	return ok && time.Since(at) <= d
}

// Those below are raft's.

func (t *transport) Consumer() <-chan raft.RPC { return t.rpcs }

func (t *transport) LocalAddr() raft.ServerAddress { return t.address }

func (t *transport) Close() error {
	t.once.Do(func() { close(t.end) })
	err := t.NetworkTransport.Close()
	t.passing.Wait()
	return err
}

func (t *transport) AppendEntries(id raft.ServerID, to raft.ServerAddress, q *raft.AppendEntriesRequest, a *raft.AppendEntriesResponse) error {
	err := t.NetworkTransport.AppendEntries(id, to, q, a)
	if err == nil {
		t.mu.Lock()
		t.heard[id] = time.Now()
		t.mu.Unlock()
	}
	return err
}

func (t *transport) RequestVote(id raft.ServerID, to raft.ServerAddress, q *raft.RequestVoteRequest, a *raft.RequestVoteResponse) error {
	return again(func() error { return t.NetworkTransport.RequestVote(id, to, q, a) })
}

func (t *transport) RequestPreVote(id raft.ServerID, to raft.ServerAddress, q *raft.RequestPreVoteRequest, a *raft.RequestPreVoteResponse) error {
	return again(func() error { return t.NetworkTransport.RequestPreVote(id, to, q, a) })
}

func (t *transport) TimeoutNow(id raft.ServerID, to raft.ServerAddress, q *raft.TimeoutNowRequest, a *raft.TimeoutNowResponse) error {
	return again(func() error { return t.NetworkTransport.TimeoutNow(id, to, q, a) })
}

// again repeats a request that failed on a connection of the pool, which the
// other engine may have closed long ago (it began anew, say): raft itself
// would count the vote as refused and wait for the next election. What can't
// be dialed or takes too long is not repeated.
func again(do func() error) error {
	for range maxPool {
		err := do()
		var slow net.Error
		if err == nil || errors.Is(err, errDial) || errors.As(err, &slow) && slow.Timeout() {
			return err
		}
	}
	return do()
}

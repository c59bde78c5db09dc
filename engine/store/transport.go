package store

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
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

// transport is raft's network with five things of its own: raft here can be
// told to stand for election at once, a vote isn't lost to a connection that
// died while it was idle, it is known which engines answer, one that is back
// gets the log at once, and one that has moved is found where it asks from.
type transport struct {
	*raft.NetworkTransport
	address raft.ServerAddress
	rpcs    chan raft.RPC
	end     chan struct{}
	once    sync.Once
	passing sync.WaitGroup

	raft atomic.Pointer[raft.Raft] // nil: not yet

	mu    sync.Mutex
	heard map[raft.ServerID]time.Time // last answer to a heartbeat or an entry
	away  map[raft.ServerID]uint64    // term of the leader that had none to its last
	moved map[raft.ServerID]move
}

// move is an engine's new address before it stands in raft's configuration:
// the leader that would write it there may be one that is elected only once
// the engine is reached.
type move struct{ from, to raft.ServerAddress }

func newTransport(t *raft.NetworkTransport, address string) *transport {
	tr := &transport{
		NetworkTransport: t, address: raft.ServerAddress(address),
		rpcs: make(chan raft.RPC), end: make(chan struct{}), heard: map[raft.ServerID]time.Time{}, away: map[raft.ServerID]uint64{}, moved: map[raft.ServerID]move{},
	}
	if address == "" {
		tr.address = t.LocalAddr()
	}
	tr.passing.Go(func() {
		for {
			select {
			case rpc := <-t.Consumer():
				tr.learn(rpc)
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

// learn remembers where an engine asks from, if that isn't what raft knows.
func (t *transport) learn(rpc raft.RPC) {
	q, ok := rpc.Command.(raft.WithRPCHeader)
	r := t.raft.Load()
	if !ok || r == nil {
		return
	}
	header := q.GetRPCHeader()
	id, now := raft.ServerID(header.ID), raft.ServerAddress(header.Addr)
	known, is := addressOf(r, id)
	if !is || now == "" {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if delete(t.moved, id); known != now {
		t.moved[id] = move{known, now}
	}
}

// where is the address to reach an engine at that raft knows at another.
func (t *transport) where(id raft.ServerID, known raft.ServerAddress) raft.ServerAddress {
	t.mu.Lock()
	defer t.mu.Unlock()
	if m, ok := t.moved[id]; ok && m.from == known {
		return m.to
	}
	return known
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

// AppendEntries sends a heartbeat at once, but entries only to who answers
// those: raft would back off longer and longer, up to 10 s, and an engine that
// is back would be as long without the log.
func (t *transport) AppendEntries(id raft.ServerID, to raft.ServerAddress, q *raft.AppendEntriesRequest, a *raft.AppendEntriesResponse) error {
	if !heartbeat(q) {
		if err := t.back(id, q.Term); err != nil {
			return err
		}
	}
	err := t.NetworkTransport.AppendEntries(id, t.where(id, to), q, a)
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		t.away[id] = q.Term
		return err
	}
	t.heard[id] = time.Now()
	delete(t.away, id)
	return nil
}

// heartbeat is how raft's transports tell one.
func heartbeat(q *raft.AppendEntriesRequest) bool {
	return q.PrevLogEntry == 0 && q.PrevLogTerm == 0 && len(q.Entries) == 0 && q.LeaderCommitIndex == 0
}

var errAway = errors.New("the engine does not answer")

// back waits until an engine answers, as long as raft leads in that term and
// the engine is a member.
func (t *transport) back(id raft.ServerID, term uint64) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		t.mu.Lock()
		away := t.away[id] == term
		t.mu.Unlock()
		if !away {
			return nil
		}
		if r := t.raft.Load(); r != nil && (r.State() != raft.Leader || r.CurrentTerm() != term || !isMember(r, id)) {
			return errAway
		}
		select {
		case <-tick.C:
		case <-t.end:
			return errAway
		}
	}
}

func isMember(r *raft.Raft, id raft.ServerID) bool {
	_, is := addressOf(r, id)
	return is
}

// addressOf is an engine's in raft's newest configuration.
func addressOf(r *raft.Raft, id raft.ServerID) (address raft.ServerAddress, is bool) {
	f := r.GetConfiguration()
	if f.Error() != nil {
		return "", false
	}
	for _, s := range f.Configuration().Servers {
		if s.ID == id {
			return s.Address, true
		}
	}
	return "", false
}

func (t *transport) AppendEntriesPipeline(id raft.ServerID, to raft.ServerAddress) (raft.AppendPipeline, error) {
	return t.NetworkTransport.AppendEntriesPipeline(id, t.where(id, to))
}

func (t *transport) InstallSnapshot(id raft.ServerID, to raft.ServerAddress, q *raft.InstallSnapshotRequest, a *raft.InstallSnapshotResponse, data io.Reader) error {
	return t.NetworkTransport.InstallSnapshot(id, t.where(id, to), q, a, data)
}

func (t *transport) RequestVote(id raft.ServerID, to raft.ServerAddress, q *raft.RequestVoteRequest, a *raft.RequestVoteResponse) error {
	return again(func() error { return t.NetworkTransport.RequestVote(id, t.where(id, to), q, a) })
}

func (t *transport) RequestPreVote(id raft.ServerID, to raft.ServerAddress, q *raft.RequestPreVoteRequest, a *raft.RequestPreVoteResponse) error {
	return again(func() error { return t.NetworkTransport.RequestPreVote(id, t.where(id, to), q, a) })
}

func (t *transport) TimeoutNow(id raft.ServerID, to raft.ServerAddress, q *raft.TimeoutNowRequest, a *raft.TimeoutNowResponse) error {
	return again(func() error { return t.NetworkTransport.TimeoutNow(id, t.where(id, to), q, a) })
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

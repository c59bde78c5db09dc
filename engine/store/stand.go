package store

import (
	"sync"

	"github.com/hashicorp/raft"
)

// standing is raft's transport with a way to tell raft to stand for election
// at once, as a leader that hands over does: a lone voter has nobody to wait
// for. (Shorter timers would do it too, but the leader's lease can't be made
// longer again when a second voter joins.)
type standing struct {
	*raft.NetworkTransport
	rpcs chan raft.RPC
	end  chan struct{}
	once sync.Once
}

func newStanding(t *raft.NetworkTransport) *standing {
	s := &standing{NetworkTransport: t, rpcs: make(chan raft.RPC), end: make(chan struct{})}
	go func() { // ends with Close
		for {
			select {
			case rpc := <-t.Consumer():
				s.hand(rpc)
			case <-s.end:
				return
			}
		}
	}()
	return s
}

func (s *standing) hand(rpc raft.RPC) {
	select {
	case s.rpcs <- rpc:
	case <-s.end:
	}
}

// Consumer is raft's.
func (s *standing) Consumer() <-chan raft.RPC { return s.rpcs }

// Close is raft's.
func (s *standing) Close() error {
	s.once.Do(func() { close(s.end) })
	return s.NetworkTransport.Close()
}

// stand lets the store of id be a candidate.
func (s *standing) stand(id raft.ServerID, protocol raft.ProtocolVersion) {
	answer := make(chan raft.RPCResponse, 1)
	s.hand(raft.RPC{RespChan: answer, Command: &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{
		ProtocolVersion: protocol, ID: []byte(id), Addr: []byte(s.LocalAddr()),
	}}})
	select {
	case <-answer:
	case <-s.end:
	}
}

package store

import (
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// patient keeps raft alive while the disk takes no writes (full, mostly):
// raft itself panics when it can't save a vote. A write is tried again until
// it succeeds; meanwhile Propose refuses at once and says why.
type patient struct {
	raft.LogStore
	raft.StableStore
	log *slog.Logger

	mu      sync.Mutex
	err     error         // of the write that is being retried
	trouble chan struct{} // closed while err is set
	closing chan struct{}
}

func newPatient(logs raft.LogStore, stable raft.StableStore, log *slog.Logger) *patient {
	return &patient{LogStore: logs, StableStore: stable, log: log, trouble: make(chan struct{}), closing: make(chan struct{})}
}

const writeAgain = 500 * time.Millisecond

func (p *patient) write(what string, do func() error) error {
	err := do()
	if err == nil {
		return nil
	}
	p.set(fmt.Errorf("cannot write the raft log: %w; nothing is lost, and the engine goes on by itself once it can write again", err))
	p.log.Error("cannot write "+what+"; trying again until it works", "error", err)
	defer p.set(nil)
	t := time.NewTicker(writeAgain)
	defer t.Stop()
	for {
		select {
		case <-p.closing:
			return fmt.Errorf("%w: %w", ErrLost, err) // part of it may be on the disk
		case <-t.C:
			if err = do(); err == nil {
				p.log.Info("the raft log can be written again")
				return nil
			}
		}
	}
}

func (p *patient) set(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil && p.err == nil {
		close(p.trouble)
	}
	if err == nil && p.err != nil {
		p.trouble = make(chan struct{})
	}
	p.err = err
}

// state is a channel that closes when writes fail, and the error if they do.
func (p *patient) state() (<-chan struct{}, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.trouble, p.err
}

func (p *patient) StoreLog(l *raft.Log) error {
	return p.write("the raft log", func() error { return p.LogStore.StoreLog(l) })
}

func (p *patient) StoreLogs(l []*raft.Log) error {
	return p.write("the raft log", func() error { return p.LogStore.StoreLogs(l) })
}

func (p *patient) Set(k, v []byte) error {
	return p.orEnd(p.write("raft's vote", func() error { return p.StableStore.Set(k, v) }))
}

func (p *patient) SetUint64(k []byte, v uint64) error {
	return p.orEnd(p.write("raft's term", func() error { return p.StableStore.SetUint64(k, v) }))
}

// orEnd ends raft's goroutine where the store closes before a vote could be
// saved: with the error raft would panic, without it the vote might be given
// twice.
func (p *patient) orEnd(err error) error {
	select {
	case <-p.closing:
		if err != nil {
			runtime.Goexit()
		}
	default:
	}
	return err
}

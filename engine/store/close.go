package store

import (
	"context"
	"errors"
	"time"
)

// answeredWithin is how long raft gets at its end to answer what it was asked.
// It does so as soon as it has lost a leadership that nobody confirms.
const answeredWithin = 2 * time.Second

// Close hands leadership over where there is somebody to take it, and ends.
func (s *Store) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), answeredWithin)
	defer cancel()
	if err := s.Transfer(ctx); err != nil && !errors.Is(err, ErrNotLeader) && !errors.Is(err, ErrNobody) {
		s.log.Warn("cannot hand leadership over", "error", err)
	}
	return s.end()
}

func (s *Store) end() error {
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	close(s.disk.closing)
	s.drain()
	ended := s.raft.Shutdown()
	s.trans.Close() // raft waits for what it has asked of others
	err := ended.Error()
	return errors.Join(err, s.files.close())
}

// drain waits for raft's answers: those that it owes when it ends never come.
func (s *Store) drain() {
	done := make(chan struct{})
	go func() {
		s.asked.Wait()
		close(done)
	}()
	t := time.NewTimer(answeredWithin)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
	}
}

package dispatch

import (
	"context"
	"errors"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"orch/engine/api"
)

// batch gathers statuses while the entry before is being committed, so that
// a busy cluster writes few large entries and an idle one waits for nothing.
type batch struct {
	mu      sync.Mutex
	wake    chan struct{}
	pending []*api.ReportStatus
	facts   map[string]*api.NodeFacts
	waiters []chan error
	ended   chan struct{} // closed when run ends
}

func (b *batch) signal() {
	if b.wake == nil {
		b.wake = make(chan struct{}, 1)
	}
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

func (b *batch) enqueue(r *api.ReportStatus) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(r.Statuses) > 0 {
		b.pending = append(b.pending, r)
		b.signal()
	}
}

func (b *batch) enqueueFacts(node string, f *api.NodeFacts) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.facts == nil {
		b.facts = map[string]*api.NodeFacts{}
	}
	b.facts[node] = f
	b.signal()
}

// add is enqueue that waits until the report is committed.
func (b *batch) add(ctx context.Context, r *api.ReportStatus) error {
	if len(r.Statuses) == 0 {
		return nil
	}
	done := make(chan error, 1)
	b.mu.Lock()
	b.pending = append(b.pending, r)
	b.waiters = append(b.waiters, done)
	b.signal()
	ended := b.ended
	b.mu.Unlock()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-ended:
		return errors.New("this engine does not lead any more")
	case err := <-done:
		return err
	}
}

// reportAgain is the pause after reports couldn't be committed.
const reportAgain = 250 * time.Millisecond

func (b *batch) run(ctx context.Context, store Store) {
	b.mu.Lock()
	if b.wake == nil {
		b.wake = make(chan struct{}, 1)
	}
	wake := b.wake
	b.ended = make(chan struct{})
	defer close(b.ended)
	b.mu.Unlock()
	for {
		select {
		case <-ctx.Done():
			b.fail(ctx.Err())
			return
		case <-wake:
		}
		b.mu.Lock()
		reports, facts, waiters := b.pending, b.facts, b.waiters
		b.pending, b.facts, b.waiters = nil, nil, nil
		b.mu.Unlock()
		var err error
		if len(reports) > 0 {
			_, err = store.Propose(ctx, &api.Command{
				Time: timestamppb.Now(),
				Kind: &api.Command_Reports{Reports: &api.Reports{Reports: reports}},
			})
		}
		for node, f := range facts {
			_, _ = store.Propose(ctx, &api.Command{ // the next hello says it again
				Time: timestamppb.Now(),
				Kind: &api.Command_SetNode{SetNode: &api.SetNode{Id: node, Facts: f}},
			})
		}
		for _, w := range waiters {
			w <- err
		}
		if err != nil && ctx.Err() == nil {
			// Not lost: the leader ends, or the disk is full for a while.
			b.requeue(reports)
			again := time.NewTimer(reportAgain)
			select {
			case <-ctx.Done():
			case <-again.C:
			}
			again.Stop()
		}
	}
}

// requeue puts reports back before those that came meanwhile.
func (b *batch) requeue(reports []*api.ReportStatus) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pending = append(reports, b.pending...)
	b.signal()
}

func (b *batch) fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, w := range b.waiters {
		w <- err
	}
	b.pending, b.waiters = nil, nil
}

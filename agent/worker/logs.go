package worker

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"orch/agent/task"
	"orch/engine/api"
)

// logBatch lines go out at once when they come together.
const logBatch = 256

// Logs passes the lines of the tasks asked for to send, several tasks side by
// side, until they have no more or ctx ends. send is never called twice at
// the same time.
func (w *Worker) Logs(ctx context.Context, ask *api.LogRequest, send func(*api.LogBatch) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	lines := make(chan *api.LogLine, logBatch)
	problems := make(chan string, len(ask.TaskIds))
	var tasks sync.WaitGroup
	for _, id := range ask.TaskIds {
		w.mu.Lock()
		a := w.actors[id]
		w.mu.Unlock()
		if a == nil || a.runtime == nil {
			problems <- fmt.Sprintf("task %s is not on this node any more", id)
			continue
		}
		tasks.Go(func() {
			if err := a.logs(ctx, ask, lines); err != nil && ctx.Err() == nil {
				problems <- fmt.Sprintf("logs of task %s: %v", id, err)
			}
		})
	}
	go func() { // ends when the tasks' readers do, which ctx ends
		tasks.Wait()
		close(lines)
	}()
	for open := true; open; {
		var batch []*api.LogLine
		line, ok := <-lines
		if open = ok; ok {
			batch = append(batch, line)
		}
	more:
		for open && len(batch) < logBatch {
			select {
			case line, ok := <-lines:
				if !ok {
					open = false
					break more
				}
				batch = append(batch, line)
			default:
				break more
			}
		}
		if len(batch) > 0 {
			if err := send(&api.LogBatch{Subscription: ask.Subscription, Lines: batch}); err != nil {
				cancel(err)
				for range lines { // let the readers end
				}
				return err
			}
		}
	}
	for {
		select {
		case text := <-problems:
			if err := send(&api.LogBatch{Subscription: ask.Subscription, Error: text}); err != nil {
				return err
			}
		default:
			return send(&api.LogBatch{Subscription: ask.Subscription, End: true})
		}
	}
}

func (a *actor) logs(ctx context.Context, ask *api.LogRequest, out chan<- *api.LogLine) error {
	opt := task.LogOptions{Follow: ask.Follow, Tail: int(ask.Tail)}
	if ask.Since != nil {
		opt.Since = ask.Since.AsTime()
	}
	for ask.Follow { // a task that isn't there yet has no lines yet
		seen, err := a.runtime.Inspect(ctx, a.t.ID)
		if err != nil || seen.Phase != task.Absent || a.over() {
			break
		}
		t := time.NewTimer(200 * time.Millisecond)
		select {
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		case <-t.C:
		}
	}
	return a.runtime.Logs(ctx, a.t.ID, opt, func(l task.Line) error {
		line := &api.LogLine{TaskId: a.t.ID, Stream: l.Stream, Time: timestamppb.New(l.Time), Text: append([]byte(nil), l.Text...)}
		select {
		case out <- line:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
}

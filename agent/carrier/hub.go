package carrier

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"orch/engine/api"
)

// mostRecords of the log wait for an agent that takes them; the oldest go.
const mostRecords = 200

// hub tells the agents that watch what happens. It is the handler of the
// process's log as well. The zero value is ready; it is safe for concurrent use.
type hub struct {
	closed func() []*api.ClosedPort // set before it is watched

	mu       sync.Mutex
	watchers map[*watcher]bool
	waiting  []*api.LogRecord // while nobody watches
}

type watcher struct {
	wake    chan struct{}
	isEnded bool
	closed  bool // which ports are may have changed
	records []*api.LogRecord
}

// watch passes on what happens until ctx ends or send fails.
func (h *hub) watch(ctx context.Context, send func(*api.CarrierEvent) error) error {
	w := &watcher{wake: make(chan struct{}, 1)}
	h.mu.Lock()
	if h.watchers == nil {
		h.watchers = map[*watcher]bool{}
	}
	h.watchers[w] = true
	w.records, h.waiting = h.waiting, nil
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.watchers, w)
	}()
	for first := true; ; first = false {
		h.mu.Lock()
		e := &api.CarrierEvent{Ended: w.isEnded, Records: w.records}
		ports := w.closed || first
		w.isEnded, w.closed, w.records = false, false, nil
		h.mu.Unlock()
		if ports {
			e.Closed = &api.ClosedPorts{Ports: h.closed()}
		}
		if ports || e.Ended || len(e.Records) > 0 {
			if err := send(e); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.wake:
		}
	}
}

// closes says that other ports may be closed than before.
func (h *hub) closes() { h.tell(func(w *watcher) { w.closed = true }) }

// ended says that a connection to a task out of rotation may have ended.
func (h *hub) ended() { h.tell(func(w *watcher) { w.isEnded = true }) }

func (h *hub) tell(note func(*watcher)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.watchers {
		note(w)
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

// Enabled implements slog.Handler.
func (h *hub) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }

// Handle implements slog.Handler.
func (h *hub) Handle(_ context.Context, r slog.Record) error { return h.handle(r, nil) }

func (h *hub) handle(r slog.Record, before []string) error {
	record := &api.LogRecord{Level: int32(r.Level), Message: r.Message, Attributes: slices.Clone(before)}
	r.Attrs(func(a slog.Attr) bool {
		record.Attributes = append(record.Attributes, a.Key, fmt.Sprint(a.Value))
		return true
	})
	keep := func(all []*api.LogRecord) []*api.LogRecord {
		if len(all) >= mostRecords {
			all = all[1:]
		}
		return append(all, record)
	}
	h.mu.Lock()
	if len(h.watchers) == 0 {
		h.waiting = keep(h.waiting)
	}
	h.mu.Unlock()
	h.tell(func(w *watcher) { w.records = keep(w.records) })
	return nil
}

// WithAttrs implements slog.Handler.
func (h *hub) WithAttrs(all []slog.Attr) slog.Handler {
	with := &described{hub: h}
	for _, a := range all {
		with.attributes = append(with.attributes, a.Key, fmt.Sprint(a.Value))
	}
	return with
}

// WithGroup implements slog.Handler; groups are not told apart.
func (h *hub) WithGroup(string) slog.Handler { return h }

// described is the log with attributes.
type described struct {
	*hub
	attributes []string
}

// Handle implements slog.Handler.
func (d *described) Handle(_ context.Context, r slog.Record) error {
	return d.handle(r, d.attributes)
}

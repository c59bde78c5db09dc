package ingress

import (
	"bufio"
	"context"
	"net"
	"slices"
	"sync"
	"time"

	"orch/engine/api"
)

// pool keeps connections to tasks for later requests. It is safe for concurrent
// use.
type pool struct {
	dial func(context.Context, *api.Target) (net.Conn, error)

	mu     sync.Mutex
	idle   map[string][]*line // by task; the one used last comes last
	sweep  *time.Timer
	closed bool
}

// line is a connection to a task, used by one request at a time.
type line struct {
	net.Conn
	in    *bufio.Reader
	task  string
	since time.Time // idle
}

// open makes a connection to a task.
func (p *pool) open(ctx context.Context, target *api.Target) (*line, error) {
	c, err := p.dial(ctx, target)
	if err != nil {
		return nil, err
	}
	return &line{Conn: c, in: bufio.NewReaderSize(c, 4<<10), task: target.TaskId}, nil
}

// grow doubles the buffer for what comes, and keeps what is in it.
func (l *line) grow() {
	had, _ := l.in.Peek(l.in.Buffered())
	rest := append([]byte(nil), had...)
	l.in = bufio.NewReaderSize(&resumed{Conn: l.Conn, read: rest}, 2*l.in.Size())
}

// take is the connection to a task that was used last; nil: there is none.
func (p *pool) take(task string) *line {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := p.idle[task]
	if len(all) == 0 {
		return nil
	}
	l := all[len(all)-1]
	all[len(all)-1] = nil
	p.idle[task] = all[:len(all)-1]
	return l
}

// put keeps a connection.
func (p *pool) put(l *line) {
	l.since = time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.idle[l.task]) >= idlePerTask {
		l.Close()
		return
	}
	if p.idle == nil {
		p.idle = map[string][]*line{}
	}
	p.idle[l.task] = append(p.idle[l.task], l)
	if p.sweep == nil {
		p.sweep = time.AfterFunc(unusedFor, p.tidy)
	}
}

// tidy closes what was idle for long.
func (p *pool) tidy() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	for task, all := range p.idle {
		p.idle[task] = slices.DeleteFunc(all, func(l *line) bool {
			old := time.Since(l.since) >= unusedFor
			if old {
				l.Close()
			}
			return old
		})
		if len(p.idle[task]) == 0 {
			delete(p.idle, task)
		}
	}
	p.sweep.Reset(unusedFor)
}

// close closes what is idle, and whatever is given back later.
func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.sweep != nil {
		p.sweep.Stop()
	}
	for _, all := range p.idle {
		for _, l := range all {
			l.Close()
		}
	}
	p.idle = nil
}

package ingress

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"sync"
	"time"

	"orch/engine/api"
)

// direct asks tasks by HTTP/1.1 without net/http's two goroutines a connection:
// a request that has no body, may be asked twice and asks for no upgrade, which
// is most of them, is written and its answer read where it is served. It is
// safe for concurrent use.
type direct struct {
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

// takes says that a request can go this way.
func (d *direct) takes(r *http.Request) bool {
	return r.ProtoMajor == 1 && (r.Body == nil || r.Body == http.NoBody) && r.Header.Get("Upgrade") == "" && again(r, nil)
}

// RoundTrip implements http.RoundTripper.
func (d *direct) RoundTrip(r *http.Request) (*http.Response, error) {
	target := targetOf(r.Context())
	for {
		var err error
		l := d.take(target.TaskId)
		kept := l != nil
		if !kept {
			if l, err = d.open(r.Context(), target); err != nil {
				return nil, err
			}
		}
		stop := context.AfterFunc(r.Context(), func() { l.Close() })
		answer, err := l.ask(r)
		if err == nil {
			answer.Body = &body{ReadCloser: answer.Body, d: d, l: l, stop: stop, keep: !answer.Close && !r.Close}
			return answer, nil
		}
		stop()
		l.Close()
		if !kept || r.Context().Err() != nil {
			return nil, err
		}
		// The task has closed it meanwhile, perhaps: that is no reason to leave it.
	}
}

// open makes a connection to a task.
func (d *direct) open(ctx context.Context, target *api.Target) (*line, error) {
	c, err := d.dial(ctx, target)
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

// ask writes a request and reads the head of its answer.
func (l *line) ask(r *http.Request) (*http.Response, error) {
	out := bufio.NewWriterSize(l.Conn, 4<<10)
	err := r.Write(out)
	if err == nil {
		err = out.Flush()
	}
	for err == nil {
		var answer *http.Response
		if answer, err = http.ReadResponse(l.in, r); err != nil {
			break
		}
		switch {
		case answer.StatusCode == http.StatusSwitchingProtocols:
			return nil, errors.New("the task changes the protocol unasked")
		case answer.StatusCode >= 200:
			return answer, nil
		}
		if t := httptrace.ContextClientTrace(r.Context()); t != nil && t.Got1xxResponse != nil {
			err = t.Got1xxResponse(answer.StatusCode, textproto.MIMEHeader(answer.Header))
		}
	}
	return nil, err
}

// body gives its connection back once it is read to its end.
type body struct {
	io.ReadCloser
	d    *direct
	l    *line
	stop func() bool
	keep bool
	once sync.Once
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.end(errors.Is(err, io.EOF) && b.keep)
	}
	return n, err
}

// Close gives up what was not read, and the connection with it.
func (b *body) Close() error {
	b.end(b.keep && b.ReadCloser == http.NoBody)
	return nil
}

func (b *body) end(keep bool) { b.once.Do(func() { b.give(keep) }) }

func (b *body) give(keep bool) {
	if b.stop() && keep {
		b.d.put(b.l)
		return
	}
	b.l.Close()
}

func (d *direct) take(task string) *line {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := d.idle[task]
	if len(all) == 0 {
		return nil
	}
	l := all[len(all)-1]
	all[len(all)-1] = nil
	d.idle[task] = all[:len(all)-1]
	return l
}

func (d *direct) put(l *line) {
	l.since = time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || len(d.idle[l.task]) >= idlePerTask {
		l.Close()
		return
	}
	if d.idle == nil {
		d.idle = map[string][]*line{}
	}
	d.idle[l.task] = append(d.idle[l.task], l)
	if d.sweep == nil {
		d.sweep = time.AfterFunc(idleFor/2, d.tidy)
	}
}

// tidy closes what was idle for long.
func (d *direct) tidy() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return
	}
	for task, all := range d.idle {
		d.idle[task] = slices.DeleteFunc(all, func(l *line) bool {
			old := time.Since(l.since) >= idleFor/2
			if old {
				l.Close()
			}
			return old
		})
		if len(d.idle[task]) == 0 {
			delete(d.idle, task)
		}
	}
	d.sweep.Reset(idleFor / 2)
}

// close closes what is idle, and whatever is given back later.
func (d *direct) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	if d.sweep != nil {
		d.sweep.Stop()
	}
	for _, all := range d.idle {
		for _, l := range all {
			l.Close()
		}
	}
	d.idle = nil
}

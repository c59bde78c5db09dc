package ingress

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"orch/engine/api"
)

// Most requests are plain (see request): those of a connection are served here,
// by one goroutine. With the first that isn't, the connection goes over to
// net/http, for good.

const (
	mostPlain = 8 << 10         // bytes of a plain request's head
	lookEvery = 2 * time.Second // whether a client is still there that waits for an answer
	answerMax = 64 << 10        // bytes of an answer's head
)

// plain serves the plain requests of one port's connections.
type plain struct {
	front *front
	kept  *pool
	over  *handed // to net/http

	mu     sync.Mutex
	ended  bool              // no new requests
	idle   map[net.Conn]bool // connections that wait for one
	active sync.WaitGroup
}

// serve accepts until the listener fails.
func (p *plain) serve(ctx context.Context, l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		p.active.Go(func() { p.connection(ctx, c) })
	}
}

// end closes what is idle and returns when nothing is under way; ctx ends all.
// Where another process listens from now on a connection ends with its next
// answer: closed before, it might take a request with it that is on its way.
func (p *plain) end(ctx context.Context) {
	p.mu.Lock()
	if !p.front.lame.Load() {
		p.ended = true
		for c := range p.idle {
			c.Close()
		}
	}
	p.mu.Unlock()
	p.active.Wait()
}

// waits says that a connection waits for a request, or no longer does; false:
// it shall end.
func (p *plain) waits(c net.Conn, so bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return !so
	}
	if so {
		p.idle[c] = true
	} else {
		delete(p.idle, c)
	}
	return true
}

func (p *plain) connection(ctx context.Context, c net.Conn) {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		p.over.give(c, nil)
		return
	}
	stop := context.AfterFunc(ctx, func() { c.Close() })
	x := exchange{plain: p, client: tcp}
	x.address, _, _ = net.SplitHostPort(c.RemoteAddr().String())
	left, kept := x.requests(ctx)
	stop()
	p.waits(c, false)
	if kept {
		p.over.give(c, left)
		return
	}
	c.Close()
}

// exchange is one connection's requests, one after the other.
type exchange struct {
	*plain
	client  *net.TCPConn
	address string
	in      []byte // what was read and is not used yet
	out     []byte
	request request
	answer  answer
}

// requests serves until the connection is over, or has to go to net/http (kept)
// with what was read of its next request.
func (x *exchange) requests(ctx context.Context) (left []byte, kept bool) {
	raw, err := x.client.SyscallConn()
	if err != nil {
		return nil, false
	}
	for {
		if !x.waits(x.client, true) {
			return nil, false
		}
		head := bytes.Index(x.in, headEnd)
		_ = x.client.SetReadDeadline(time.Now().Add(idleFor))
		for begun := len(x.in) > 0; head < 0; head = bytes.Index(x.in, headEnd) {
			if len(x.in) > mostPlain || len(x.in) > 0 && !mayBePlain(x.in) || bare(x.in) {
				return x.in, true
			}
			b, n, err := next(raw)
			if err != nil || n == 0 {
				return nil, false
			}
			x.in = append(x.in, b[:n]...)
			chunks.Put(b)
			if !begun {
				begun = true
				_ = x.client.SetReadDeadline(time.Now().Add(headerWithin))
			}
		}
		x.waits(x.client, false)
		if !x.request.parse(x.in[:head]) {
			return x.in, true
		}
		if x.front.lame.Load() {
			x.request.close = true
		}
		if !x.serve(ctx) || x.request.close {
			return nil, false
		}
		if x.in = x.in[head+len(headEnd):]; len(x.in) == 0 {
			x.in = nil // an idle connection holds none
		}
	}
}

// serve has a request answered; false: the connection can't go on.
func (x *exchange) serve(ctx context.Context) bool {
	f := x.front
	until := time.Now().Add(hold)
	var tried tries
	for {
		target := f.pick(tried)
		for target == nil {
			if gone(x.client) || ctx.Err() != nil {
				return false
			}
			left := min(time.Until(until), lookEvery)
			if left <= 0 {
				return x.fails(http.StatusServiceUnavailable, errNoTask)
			}
			wait, cancel := context.WithTimeout(ctx, left)
			target = f.next(wait, tried)
			full := target == nil && wait.Err() == nil
			cancel()
			if full { // too many wait already
				return x.fails(http.StatusServiceUnavailable, errNoTask)
			}
		}
		began := time.Now()
		l, err := x.ask(ctx, target)
		if err == nil {
			f.count(target, began, x.answer.status >= http.StatusInternalServerError)
			whole := x.bring(l)
			if whole && !x.answer.close {
				x.kept.put(l)
			} else {
				l.Close()
			}
			f.release(target)
			return whole && x.answer.ends != byClose
		}
		f.release(target)
		if errors.Is(err, errGone) || ctx.Err() != nil {
			return false
		}
		f.count(target, began, true)
		if errors.Is(err, errAnswer) {
			return x.fails(http.StatusBadGateway, err)
		}
		if tried == nil {
			tried = tries{}
		}
		tried[target.TaskId] = !unreached(err)
	}
}

// ask sends the request to a task and reads the head of the answer.
func (x *exchange) ask(ctx context.Context, target *api.Target) (*line, error) {
	for {
		l := x.kept.take(target.TaskId)
		kept := l != nil
		if !kept {
			var err error
			if l, err = x.kept.open(ctx, target); err != nil {
				return nil, err
			}
		}
		x.out = x.request.to(x.out[:0], x.address)
		_, err := l.Write(x.out)
		if err == nil {
			err = x.heads(l)
		}
		if err == nil {
			return l, nil
		}
		l.Close()
		if !kept || errors.Is(err, errGone) || errors.Is(err, errAnswer) {
			return nil, err
		}
		// The task has closed it meanwhile, perhaps: that is no reason to leave it.
	}
}

// heads reads heads until that of the final answer, which x.out then holds as
// the client gets it; those before it are passed on.
func (x *exchange) heads(l *line) error {
	for {
		b, err := x.readHead(l)
		if err != nil {
			return err
		}
		if x.out, err = x.answer.parse(x.out[:0], b, x.request.head); err != nil {
			return err
		}
		if _, err := l.in.Discard(len(b) + len(crlf)); err != nil {
			return err
		}
		switch {
		case x.answer.status == http.StatusSwitchingProtocols:
			return errAnswer
		case x.answer.status < 200:
			if _, err := x.client.Write(append(x.out, crlf...)); err != nil {
				return errGone
			}
			continue
		case x.request.close || x.answer.ends == byClose:
			x.out = append(x.out, "Connection: close\r\n"...)
		}
		x.out = append(x.out, crlf...)
		return nil
	}
}

// errGone is when there is no client any more.
var errGone = errors.New("the client is gone")

// readHead gives a head without its empty line, but with the end of its last
// line; it stays in the connection's buffer. While it waits it looks whether the
// client is still there.
func (x *exchange) readHead(l *line) ([]byte, error) {
	timed := l.SetReadDeadline(time.Now().Add(lookEvery)) == nil
	for size := 1; ; {
		_, err := l.in.Peek(size)
		b, _ := l.in.Peek(l.in.Buffered())
		if i := bytes.Index(b, headEnd); i >= 0 {
			if timed {
				_ = l.SetReadDeadline(time.Time{})
			}
			return b[:i+len(crlf)], nil
		}
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && timed:
			if gone(x.client) {
				return nil, errGone
			}
			_ = l.SetReadDeadline(time.Now().Add(lookEvery))
		case len(b) >= l.in.Size() && l.in.Size() < answerMax:
			l.grow()
		case len(b) >= l.in.Size():
			return nil, errAnswer
		case err != nil:
			return nil, err
		}
		size = l.in.Buffered() + 1
	}
}

// gone looks at a client without taking what it sent.
func gone(c *net.TCPConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	over := false
	err = raw.Control(func(fd uintptr) {
		n, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
		over = n == 0 && err == nil || err != nil && err != unix.EAGAIN && err != unix.EINTR
	})
	return err != nil || over
}

// fails answers in a task's stead.
func (x *exchange) fails(status int, why error) bool {
	text := why.Error() + "\n"
	x.out = fmt.Appendf(x.out[:0], "HTTP/1.1 %d %s\r\nContent-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\nContent-Length: %d\r\n", status, http.StatusText(status), len(text))
	if x.request.close {
		x.out = append(x.out, "Connection: close\r\n"...)
	}
	x.out = append(x.out, crlf...)
	if !x.request.head {
		x.out = append(x.out, text...)
	}
	_, err := x.client.Write(x.out)
	return err == nil
}

package ingress

import (
	"bytes"
	"io"
	"net"
	"strconv"
)

// bring passes the answer on, its head in x.out; true: all of it.
func (x *exchange) bring(l *line) bool {
	switch x.answer.ends {
	case byLength:
		return x.bringBytes(l, x.answer.length)
	case byClose:
		if _, err := x.client.Write(x.out); err != nil {
			return false
		}
		_, err := io.Copy(x.client, l.in)
		return err == nil
	}
	for {
		size, err := x.chunk(l)
		if err != nil {
			return false
		}
		if size == 0 {
			break
		}
		if !x.bringBytes(l, size+int64(len(crlf))) {
			return false
		}
		x.out = x.out[:0]
	}
	for { // trailers, and the empty line after them
		b, err := l.in.ReadSlice('\n')
		if err != nil || len(x.out)+len(b) > answerMax {
			return false
		}
		x.out = append(x.out, b...)
		if len(b) <= len(crlf) {
			_, err = x.client.Write(x.out)
			return err == nil
		}
	}
}

// chunk reads the line before a chunk's bytes.
func (x *exchange) chunk(l *line) (int64, error) {
	b, err := l.in.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	digits, _, _ := bytes.Cut(bytes.TrimRight(b, "\r\n"), []byte(";"))
	size, err := strconv.ParseUint(string(bytes.TrimRight(digits, " \t")), 16, 62)
	x.out = append(x.out, b...)
	return int64(size), err
}

// bringBytes writes what x.out holds, and n bytes of the task's.
func (x *exchange) bringBytes(l *line, n int64) bool {
	if has := min(int64(l.in.Buffered()), n); has > 0 {
		b, _ := l.in.Peek(int(has))
		x.out = append(x.out, b...)
		_, _ = l.in.Discard(int(has))
		n -= has
	}
	if _, err := x.client.Write(x.out); err != nil {
		return false
	}
	if n == 0 {
		return true
	}
	if task, ok := l.Conn.(*net.TCPConn); ok && n > bulkAfter*chunk {
		took, err := x.client.ReadFrom(io.LimitReader(task, n))
		return err == nil && took == n
	}
	b := chunks.Get().(*[chunk]byte)
	defer chunks.Put(b)
	for n > 0 {
		got, err := l.Conn.Read(b[:min(int64(chunk), n)])
		if got > 0 {
			if _, err := x.client.Write(b[:got]); err != nil {
				return false
			}
			n -= int64(got)
		}
		if err != nil && n > 0 {
			return false
		}
	}
	return true
}

package ingress

import (
	"bytes"
	"errors"
	"strconv"
)

// What is read here is what both sides of a proxy can only understand alike: a
// request or an answer that is odd in any way is not taken. See RFC 9112.

// request is the head of a plain one: GET or HEAD of a path by HTTP/1.1, without
// a body and without a wish for another protocol. Its parts are slices of what
// was read.
type request struct {
	line  []byte // without its end
	host  []byte
	lines [][]byte // headers that go on to the task, without their ends
	head  bool     // HEAD
	close bool     // the client asks no more
}

var (
	crlf    = []byte("\r\n")
	headEnd = []byte("\r\n\r\n")
	get     = []byte("GET ")
	headOf  = []byte("HEAD ")
	version = []byte(" HTTP/1.1")
)

// mayBePlain says that what has come so far can be the beginning of one.
func mayBePlain(b []byte) bool {
	for _, m := range [][]byte{get, headOf} {
		if n := min(len(m), len(b)); bytes.Equal(b[:n], m[:n]) {
			return true
		}
	}
	return false
}

// bare says that there is a line which doesn't end as it should.
func bare(b []byte) bool {
	for {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			return false
		}
		if i == 0 || b[i-1] != '\r' {
			return true
		}
		b = b[i+1:]
	}
}

// parse reads a head, its empty line left out; ok is false for what net/http has
// to see.
func (r *request) parse(b []byte) (ok bool) {
	*r = request{lines: r.lines[:0]}
	rest := b
	r.line, rest, _ = bytes.Cut(rest, crlf)
	uri, ok := bytes.CutPrefix(r.line, get)
	if !ok {
		uri, r.head = bytes.CutPrefix(r.line, headOf)
	}
	uri, is11 := bytes.CutSuffix(uri, version)
	if !ok && !r.head || !is11 || len(uri) == 0 || uri[0] != '/' || !visible(uri) {
		return false
	}
	for len(rest) > 0 {
		var line []byte
		line, rest, _ = bytes.Cut(rest, crlf)
		name, value, ok := header(line)
		if !ok {
			return false
		}
		switch {
		case is(name, "host"):
			if r.host != nil || !visible(value) || bytes.ContainsAny(value, "/?#@\\,") {
				return false
			}
			r.host = value
		case is(name, "connection"):
			if r.close = is(value, "close"); !r.close && !is(value, "keep-alive") {
				return false
			}
			continue
		case is(name, "content-length"), is(name, "transfer-encoding"), is(name, "upgrade"), is(name, "expect"), is(name, "te"), is(name, "trailer"),
			is(name, "http2-settings"), is(name, "proxy-authorization"), is(name, "proxy-connection"), is(name, "keep-alive"):
			return false
		case is(name, "forwarded"), is(name, "x-forwarded-for"), is(name, "x-forwarded-host"), is(name, "x-forwarded-proto"):
			continue // whoever is before us may be anybody
		}
		r.lines = append(r.lines, line)
	}
	return len(r.host) > 0
}

// to writes the head as a task gets it.
func (r *request) to(out []byte, client string) []byte {
	out = append(append(out, r.line...), crlf...)
	for _, l := range r.lines {
		out = append(append(out, l...), crlf...)
	}
	out = append(append(out, "X-Forwarded-For: "...), client...)
	out = append(append(out, "\r\nX-Forwarded-Host: "...), r.host...)
	return append(out, "\r\nX-Forwarded-Proto: http\r\n\r\n"...)
}

// How an answer's body ends.
const (
	byLength = iota
	byChunks
	byClose
)

// answer is the head of one.
type answer struct {
	status int
	ends   int
	length int64
	close  bool // the task's connection can't be used again
}

var errAnswer = errors.New("the task's answer is not one of HTTP")

// parse reads a head, its empty line left out, and appends it to out as the
// client gets it, without its empty line.
func (a *answer) parse(out, b []byte, toHead bool) ([]byte, error) {
	*a = answer{ends: byClose, length: -1}
	line, rest, _ := bytes.Cut(b, crlf)
	if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.")) || line[7] != '1' && line[7] != '0' || line[8] != ' ' || !printable(line) || len(line) > 12 && line[12] != ' ' {
		return out, errAnswer
	}
	a.close = line[7] == '0'
	var err error
	if a.status, err = strconv.Atoi(string(line[9:12])); err != nil || a.status < 100 {
		return out, errAnswer
	}
	out = append(append(append(out, "HTTP/1.1"...), line[8:]...), crlf...)
	chunked := false
	for all := rest; len(all) > 0; { // what is only for us has to be known first
		line, all, _ = bytes.Cut(all, crlf)
		name, value, ok := header(line)
		switch {
		case !ok:
			return out, errAnswer
		case is(name, "connection"):
			if is(value, "close") {
				a.close = true
			} else if !is(value, "keep-alive") {
				return out, errAnswer
			}
		case is(name, "content-length"):
			n, err := strconv.ParseInt(string(value), 10, 64)
			if err != nil || n < 0 || value[0] == '+' || a.length >= 0 && a.length != n {
				return out, errAnswer
			}
			a.length = n
		case is(name, "transfer-encoding"):
			if chunked || !is(value, "chunked") {
				return out, errAnswer
			}
			chunked = true
		}
	}
	if chunked && a.length >= 0 {
		return out, errAnswer
	}
	for len(rest) > 0 {
		line, rest, _ = bytes.Cut(rest, crlf)
		if name, _, _ := header(line); !is(name, "connection") && !is(name, "keep-alive") && !is(name, "proxy-connection") {
			out = append(append(out, line...), crlf...)
		}
	}
	switch {
	case toHead, a.status < 200, a.status == 204, a.status == 304:
		a.ends, a.length = byLength, 0
	case chunked:
		a.ends = byChunks
	case a.length >= 0:
		a.ends = byLength
	default:
		a.close = true
	}
	return out, nil
}

// header takes a line apart. Folded ones are not taken.
func header(line []byte) (name, value []byte, ok bool) {
	name, value, ok = bytes.Cut(line, []byte(":"))
	if !ok || len(name) == 0 || !printable(value) {
		return nil, nil, false
	}
	for _, c := range name {
		if !token[c] {
			return nil, nil, false
		}
	}
	return name, bytes.Trim(value, " \t"), true
}

// token are the characters of names.
var token = func() (all [256]bool) {
	for _, c := range []byte("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") {
		all[c] = true
	}
	return all
}()

// printable are all but control characters.
func printable(b []byte) bool {
	for _, c := range b {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// visible are characters of ASCII that one sees.
func visible(b []byte) bool {
	for _, c := range b {
		if c <= ' ' || c >= 0x7f {
			return false
		}
	}
	return true
}

func is(b []byte, lower string) bool {
	return len(b) == len(lower) && bytes.EqualFold(b, []byte(lower))
}

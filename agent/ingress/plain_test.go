package ingress

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"orch/engine/api"
)

// speaks is a task that answers whatever request comes with these bytes, and
// then closes its connection if it is told to.
func speaks(t *testing.T, text string, close bool) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() { // ends with the listener
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for in := bufio.NewReader(c); ; {
					if _, err := http.ReadRequest(in); err != nil {
						return
					}
					if _, err := io.WriteString(c, text); err != nil || close {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

// talk sends bytes to a port and gives all that comes back until it is quiet or
// closed.
func talk(t *testing.T, at string, parts ...string) string {
	t.Helper()
	c, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, p := range parts {
		if _, err := io.WriteString(c, p); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	all, _ := io.ReadAll(c)
	return string(all)
}

const (
	plainAsk  = "GET /x?y=1 HTTP/1.1\r\nHost: shop\r\n\r\n"
	plainLast = "GET /z HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n"
)

func TestAnswers(t *testing.T) {
	big := strings.Repeat("0123456789abcdef", 100_000)
	for name, c := range map[string]struct {
		says  string
		close bool
		asks  []string
		want  string
	}{
		"two": {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\nX: 1\r\n\r\nok", false, []string{plainAsk, plainLast},
			"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: 1\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: 1\r\nConnection: close\r\n\r\nok"},
		"pipelined, and cut": {"HTTP/1.1 204 No Content\r\n\r\n", false, []string{plainAsk + plainAsk[:7], plainAsk[7:] + plainLast[:20], plainLast[20:]},
			"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"},
		"chunked": {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n10;x=y\r\n0123456789abcdef\r\n0\r\nT: 1\r\n\r\n", false, []string{plainAsk, plainLast},
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n10;x=y\r\n0123456789abcdef\r\n0\r\nT: 1\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n10;x=y\r\n0123456789abcdef\r\n0\r\nT: 1\r\n\r\n"},
		"until it closes": {"HTTP/1.1 200 OK\r\n\r\nall of it", true, []string{plainAsk}, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall of it"},
		"old":             {"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", true, []string{plainAsk, plainLast}, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"},
		"a head only":     {"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", false, []string{"HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"}, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\n"},
		"not modified":    {"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", false, []string{plainAsk, plainLast}, "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\nHTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\nConnection: close\r\n\r\n"},
		"hints before":    {"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false, []string{plainLast}, "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"},
		"much":            {fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(big), big), false, []string{plainLast}, fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(big), big)},
		"a large head":    {"HTTP/1.1 200 OK\r\nX: " + big[:20_000] + "\r\nContent-Length: 2\r\n\r\nok", false, []string{plainLast}, "HTTP/1.1 200 OK\r\nX: " + big[:20_000] + "\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"},
	} {
		t.Run(name, func(t *testing.T) {
			p, at := start(t), free(t)
			dialable(t, p, onHTTP(at, to(speaks(t, c.says, c.close))...))
			if got := talk(t, at, c.asks...); got != c.want {
				t.Errorf("got %.300q\nwant %.300q", got, c.want)
			}
		})
	}
}

// An answer that could be understood in two ways is none.
func TestBadAnswers(t *testing.T) {
	for _, says := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
		"HTTP/1.1 200 OK\r\nX : 1\r\n\r\n",
		"HTTP/1.1 200 OK\r\n folded\r\n\r\n",
		"HTTP/2.0 200 OK\r\n\r\n",
		"HTTP/1.1 2x0 OK\r\n\r\n",
		"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
		"SSH-2.0-OpenSSH\r\n\r\n",
		"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", answerMax) + "\r\n\r\n",
	} {
		p, at := start(t), free(t)
		dialable(t, p, onHTTP(at, to(speaks(t, says, false))...))
		if got := talk(t, at, plainLast); !strings.HasPrefix(got, "HTTP/1.1 502 Bad Gateway\r\n") || !strings.Contains(got, "Connection: close\r\n") {
			t.Errorf("%.80q: got %.200q", says, got)
		}
	}
}

// What isn't plain is net/http's, also in the middle of a connection.
func TestOthersAreHandedOver(t *testing.T) {
	p, at := start(t), free(t)
	_, a := task(t, "a", says("a"))
	dialable(t, p, onHTTP(at, a))
	got := talk(t, at, plainAsk, "POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 2\r\n\r\nhi", plainLast)
	if strings.Count(got, "HTTP/1.1 200 OK") != 3 || !strings.Contains(got, "a POST shop HTTP/1.1 127.0.0.1 hi") {
		t.Errorf("got %q", got)
	}
	for _, odd := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\n",
		"GET / HTTP/1.1\r\n\r\n",
		"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
	} {
		if got := talk(t, at, odd); !strings.HasPrefix(got, "HTTP/1.1 400 ") {
			t.Errorf("%q: got %.100q", odd, got)
		}
	}
	// Lines without \r are read by net/http as well.
	if got := talk(t, at, "GET / HTTP/1.1\nHost: shop\nConnection: close\n\n"); !strings.HasPrefix(got, "HTTP/1.1 200 OK") {
		t.Errorf("got %q", got)
	}
}

// A connection that the task closed while nobody used it is no failure.
func TestKeptConnectionsMayEnd(t *testing.T) {
	p, at := start(t), free(t)
	dialable(t, p, onHTTP(at, to(speaks(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", true))...))
	if got := talk(t, at, plainAsk, plainAsk, plainAsk, plainLast); strings.Count(got, "HTTP/1.1 200 OK") != 4 {
		t.Errorf("got %q", got)
	}
}

// Who goes away while a task thinks is noticed, and no longer in flight.
func TestClientGoes(t *testing.T) {
	p, at := start(t), free(t)
	asked, release := make(chan bool), make(chan struct{})
	_, a := task(t, "a", func(http.ResponseWriter, *http.Request) { asked <- true; <-release })
	defer close(release)
	ended := make(chan struct{}, 1)
	p.Ended = func() {
		select {
		case ended <- struct{}{}:
		default:
		}
	}
	dialable(t, p, onHTTP(at, a))
	c, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(c, plainAsk)
	<-asked
	p.Publish([]*api.Route{onHTTP(at)}) // it drains
	if n := p.InFlight(map[string]bool{a.TaskId: true}); n[a.TaskId] != 1 {
		t.Errorf("in flight %v", n)
	}
	c.Close()
	<-ended
	if n := p.InFlight(map[string]bool{a.TaskId: true}); len(n) != 0 {
		t.Errorf("in flight %v", n)
	}
}

// Whatever is taken for a plain request, net/http takes as well, and for the
// same one.
func FuzzRequest(f *testing.F) {
	for _, s := range []string{plainAsk, plainLast, "HEAD / HTTP/1.1\r\nHost: a:80\r\nX-Forwarded-For: 1\r\nA: b\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", "GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		end := bytes.Index(b, headEnd)
		var r request
		if end < 0 || bare(b[:end+len(headEnd)]) || !r.parse(b[:end]) {
			return
		}
		theirs, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(b[:end+len(headEnd)])))
		if err != nil {
			return // it is answered by the task, as it would be without us; nothing hides in it
		}
		if theirs.Host != string(r.host) || theirs.ContentLength != 0 || len(theirs.TransferEncoding) > 0 || (theirs.Method == "HEAD") != r.head || theirs.Close != r.close {
			t.Fatalf("they read %v of %q", theirs, b)
		}
		out := r.to(nil, "192.0.2.1")
		again, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(out)))
		if err != nil || again.Host != theirs.Host || again.RequestURI != theirs.RequestURI || again.Method != theirs.Method || again.ContentLength != 0 || again.Header.Get("X-Forwarded-For") != "192.0.2.1" {
			t.Fatalf("the task gets %q: %v, %v", out, again, err)
		}
		var third request
		if i := bytes.Index(out, headEnd); i != len(out)-len(headEnd) || bare(out) || !third.parse(out[:i]) {
			t.Fatalf("it isn't one request any more: %q", out)
		}
	})
}

// Whatever is taken for an answer's head, net/http takes, and finds the same end.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", "HTTP/1.1 204 x\r\n\r\n", "HTTP/1.0 200\r\nConnection: close\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"} {
		f.Add([]byte(s), false)
	}
	f.Fuzz(func(t *testing.T, b []byte, head bool) {
		end := bytes.Index(b, headEnd)
		var a answer
		if end < 0 || bare(b[:end+len(headEnd)]) {
			return
		}
		out, err := a.parse(nil, b[:end+len(crlf)], head)
		if err != nil || a.status < 200 {
			return
		}
		method := "GET"
		if head {
			method = "HEAD"
		}
		theirs, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(append(out, crlf...))), &http.Request{Method: method})
		if err != nil {
			t.Fatalf("%q became %q: %v", b, out, err)
		}
		chunked := len(theirs.TransferEncoding) > 0
		none := head || a.status == 204 || a.status == 304
		switch {
		case theirs.StatusCode != a.status,
			!none && chunked != (a.ends == byChunks),
			!none && !chunked && theirs.ContentLength >= 0 != (a.ends == byLength),
			!none && a.ends == byLength && theirs.ContentLength != a.length:
			t.Fatalf("%q: they find %v, we %+v", b, theirs, a)
		}
	})
}

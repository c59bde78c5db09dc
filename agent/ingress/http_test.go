package ingress

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"orch/engine/api"
)

// onHTTP is a route of requests at host:port.
func onHTTP(address string, targets ...*api.Target) *api.Route {
	r := on(address, targets...)
	r.Protocol = "http"
	return r
}

// task is an HTTP server, and the target that leads to it.
func task(t *testing.T, name string, h http.HandlerFunc) (*httptest.Server, *api.Target) {
	s := httptest.NewUnstartedServer(h)
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	return s, &api.Target{TaskId: "s/" + name + "#1", Address: s.Listener.Addr().String()}
}

func says(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s %s %s %s", text, r.Method, r.Host, r.Proto, r.Header.Get("X-Forwarded-For"), body)
	}
}

func fetch(t *testing.T, c *http.Client, method, url, body string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "shop.example"
	r.Header.Set("X-Forwarded-For", "6.6.6.6")
	a, err := c.Do(r)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer a.Body.Close()
	b, err := io.ReadAll(a.Body)
	if err != nil {
		t.Fatal(err)
	}
	return a.StatusCode, string(b)
}

func TestRequestsAreBalanced(t *testing.T) {
	p, at := start(t), free(t)
	_, a := task(t, "a", says("a"))
	_, b := task(t, "b", says("b"))
	dialable(t, p, onHTTP(at, a, b))
	seen := map[string]int{}
	for range 10 { // over one connection
		status, text := fetch(t, http.DefaultClient, "POST", "http://"+at+"/x", "hello")
		if status != 200 || !strings.HasSuffix(text, " POST shop.example HTTP/1.1 127.0.0.1 hello") {
			t.Errorf("%d %q", status, text)
		}
		seen[text[:1]]++
	}
	if seen["a"] != 5 || seen["b"] != 5 {
		t.Errorf("they got %v", seen)
	}
}

func TestHTTP2WithoutTLS(t *testing.T) {
	p, at := start(t), free(t)
	_, a := task(t, "a", says("a"))
	dialable(t, p, onHTTP(at, a))
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	defer tr.CloseIdleConnections()
	if _, text := fetch(t, &http.Client{Transport: tr}, "POST", "http://"+at, "x"); text != "a POST shop.example HTTP/2.0 127.0.0.1 x" {
		t.Errorf("got %q", text)
	}
}

// A client's connection outlives the tasks that its requests went to.
func TestConnectionsOutliveTasks(t *testing.T) {
	p, at := start(t), free(t)
	s1, a := task(t, "a", says("a"))
	_, b := task(t, "b", says("b"))
	dialable(t, p, onHTTP(at, a))
	var dials int
	tr := &http.Transport{DialContext: func(ctx context.Context, n, address string) (net.Conn, error) {
		dials++
		return (&net.Dialer{}).DialContext(ctx, n, address)
	}}
	defer tr.CloseIdleConnections()
	c := &http.Client{Transport: tr}
	fetch(t, c, "POST", "http://"+at, "1")
	p.Publish([]*api.Route{onHTTP(at, b)})
	if n := p.InFlight(map[string]bool{a.TaskId: true}); len(n) != 0 {
		t.Errorf("in flight to a: %v", n)
	}
	s1.Close()
	if _, text := fetch(t, c, "POST", "http://"+at, "2"); !strings.HasPrefix(text, "b ") {
		t.Errorf("got %q", text)
	}
	// The connection that was kept to b is closed by it: nothing is lost.
	if dials != 1 {
		t.Errorf("%d connections", dials)
	}
}

func TestRequestsGoToAnotherTask(t *testing.T) {
	p, at := start(t), free(t)
	dead := &api.Target{TaskId: "s/dead#1", Address: free(t)}
	// It takes a connection and closes it without a word.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			bufio.NewReader(c).ReadString('\n')
			c.Close()
		}
	}()
	broken := &api.Target{TaskId: "s/broken#1", Address: l.Addr().String()}
	_, a := task(t, "a", says("a"))
	dialable(t, p, onHTTP(at, dead, a))
	for range 4 {
		if status, text := fetch(t, http.DefaultClient, "POST", "http://"+at, "once"); status != 200 || !strings.HasSuffix(text, " once") {
			t.Errorf("with one that is dead: %d %q", status, text)
		}
	}
	p.Publish([]*api.Route{onHTTP(at, broken, a)})
	for range 4 {
		if status, text := fetch(t, http.DefaultClient, "GET", "http://"+at, ""); status != 200 {
			t.Errorf("GET with one that is broken: %d %q", status, text)
		}
	}
	p.Publish([]*api.Route{onHTTP(at, broken)})
	if status, text := fetch(t, http.DefaultClient, "POST", "http://"+at, "not twice"); status != 502 {
		t.Errorf("POST to one that is broken: %d %q", status, text)
	}
}

func TestRequestsAreHeldUntilATaskIsInRotation(t *testing.T) {
	p, at := start(t), free(t)
	_, a := task(t, "a", says("a"))
	dialable(t, p, onHTTP(at))
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			if status, text := fetch(t, http.DefaultClient, "POST", "http://"+at, "x"); status != 200 {
				t.Errorf("%d %q", status, text)
			}
		})
	}
	p.Publish([]*api.Route{onHTTP(at, a)})
	all.Wait()
}

func TestUpgradesCountUntilTheyEnd(t *testing.T) {
	p, at := start(t), free(t)
	_, a := task(t, "a", func(w http.ResponseWriter, r *http.Request) {
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		io.WriteString(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		rw.Flush()
		line, _ := rw.ReadString('\n')
		io.WriteString(c, "heard "+line)
	})
	dialable(t, p, onHTTP(at, a))
	c, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	r := bufio.NewReader(c)
	answer, err := http.ReadResponse(r, nil)
	if err != nil || answer.StatusCode != 101 {
		t.Fatal(answer, err)
	}
	ended := make(chan struct{}, 8)
	p.fronts[at+"/http"].ended = func() { ended <- struct{}{} }
	p.Publish([]*api.Route{onHTTP(at)})
	if n := p.InFlight(map[string]bool{a.TaskId: true}); n[a.TaskId] != 1 {
		t.Errorf("in flight: %v", n)
	}
	io.WriteString(c, "you\n")
	if line, err := r.ReadString('\n'); line != "heard you\n" {
		t.Errorf("%q, %v", line, err)
	}
	c.Close()
	<-ended
	if n := p.InFlight(map[string]bool{a.TaskId: true}); len(n) != 0 {
		t.Errorf("afterwards: %v", n)
	}
}

// Of what comes the new version gets its part, evenly spread, and no more; who
// has no ready task gets nothing.
func TestSteeredTraffic(t *testing.T) {
	p, at := start(t), free(t)
	_, a := task(t, "a", says("a"))
	_, b := task(t, "b", says("b"))
	b.Fresh = true
	for _, percent := range []uint32{0, 1, 10, 50, 100} {
		r := onHTTP(at, a, b)
		r.Steered, r.NewPercent = true, percent
		dialable(t, p, r)
		seen := map[string]uint32{}
		for range 100 {
			_, text := fetch(t, http.DefaultClient, "GET", "http://"+at, "")
			seen[text[:1]]++
		}
		if seen["b"] != percent || seen["a"] != 100-percent {
			t.Errorf("with %d%%: %v", percent, seen)
		}
	}
	r := onHTTP(at, a)
	r.Steered, r.NewPercent = true, 100
	p.Publish([]*api.Route{r})
	if _, text := fetch(t, http.DefaultClient, "GET", "http://"+at, ""); !strings.HasPrefix(text, "a ") {
		t.Errorf("without a new task: %q", text)
	}
}

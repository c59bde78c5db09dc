package probe_test

import (
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"orch/engine/api"
	"orch/engine/probe"
)

func TestStatus(t *testing.T) {
	redirect := func(to string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", to)
			w.WriteHeader(302)
		}
	}
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
		want   uint32
		ok     bool
		reason string
	}{
		{"well", text(200, "fine"), 0, true, "GET URL/health: 200 OK"},
		{"any 2xx will not do", text(204, ""), 0, false, "GET URL/health: 204 No Content, want 200"},
		{"another is wanted", text(204, ""), 204, true, "GET URL/health: 204 No Content"},
		{"a bad one is wanted", text(404, "gone"), 404, true, "GET URL/health: 404 Not Found"},
		{"with its words", text(503, "\n  no\x00 database\xff \nand more"), 0, false, "GET URL/health: 503 Service Unavailable, want 200: no database?"},
		{"with many words", text(500, strings.Repeat("é", 3000)), 0, false, "GET URL/health: 500 Internal Server Error, want 200: " + strings.Repeat("é", 98) + "..."},
		{"redirects", redirect("/login"), 0, false, "GET URL/health: 302 Found, want 200: it redirects to URL/login, which is not followed"},
		{"redirects with secrets", redirect("http://me:secret@other/x?token=secret#secret"), 0, false, "GET URL/health: 302 Found, want 200: it redirects to http://other/x, which is not followed"},
		{"a redirect is wanted", redirect("/login"), 302, true, "GET URL/health: 302 Found"},
		{"redirects nowhere", redirect("http://me:secret@%zz"), 302, false, "GET URL/health: it redirects to an address that cannot be read"},
		{"ends early", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 0, false, "GET URL/health: the connection ended before the answer did"},
	} {
		t.Run(c.name, func(t *testing.T) {
			at := server(t, c.answer)
			ask(t, &probe.Asker{}, at, &api.Probe{Type: "http", Url: at + "/health", Status: c.want}, c.ok, c.reason)
		})
	}
}

// What a URL holds besides its place is asked with, and not told.
func TestSecretsAreNotTold(t *testing.T) {
	at := server(t, func(w http.ResponseWriter, r *http.Request) {
		name, password, _ := r.BasicAuth()
		if name != "me" || password != "secret" || r.URL.RawQuery != "token=secret" {
			t.Errorf("asked as %q %q for %s", name, password, r.URL)
		}
		w.WriteHeader(401)
	})
	with := strings.Replace(at, "http://", "http://me:secret@", 1) + "/x?token=secret"
	ask(t, &probe.Asker{}, at, &api.Probe{Type: "http", Url: with}, false, "GET URL/x: 401 Unauthorized, want 200")
	for raw, reason := range map[string]string{
		"":                                      "it has no url",
		"http://me:sec ret@host/":               "its url cannot be read",
		"http://me:secret#@host/":               "its url cannot be read",
		"me:secret@host":                        "its url does not begin with http:// or https:// and a host",
		"ftp://me:secret@host":                  "its url does not begin with http:// or https:// and a host",
		"//me:secret@host":                      "its url does not begin with http:// or https:// and a host",
		"http://me:secret@":                     "its url does not begin with http:// or https:// and a host",
		"http://me:secret@127.0.0.1:1/a?secret": "GET http://127.0.0.1:1/a: connection refused",
		"http://me:secret@name.invalid/a":       "GET http://name.invalid/a: no such host",
	} {
		p := &api.Probe{Type: "http", Url: raw}
		if strings.Contains(raw, "invalid") {
			ask(t, &probe.Asker{Client: &http.Client{Transport: nowhere{}}}, "", p, false, reason)
			continue
		}
		ask(t, &probe.Asker{}, "", p, false, reason)
	}
}

// nowhere finds no host.
type nowhere struct{}

func (nowhere) RoundTrip(r *http.Request) (*http.Response, error) {
	return nil, &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: r.Host, IsNotFound: true}}
}

func TestTooLate(t *testing.T) {
	over := make(chan struct{})
	at := server(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-over:
		}
	})
	defer close(over)
	ask(t, &probe.Asker{}, at, &api.Probe{Type: "http", Url: at, Timeout: durationpb.New(50 * time.Millisecond)}, false, "GET URL: no answer within 50ms")
}

// The client given is used, but for where redirects lead; proxies of the
// environment are not.
func TestClients(t *testing.T) {
	s := httptest.NewTLSServer(text(200, ""))
	defer s.Close()
	ask(t, &probe.Asker{Client: s.Client()}, s.URL, &api.Probe{Type: "http", Url: s.URL}, true, "GET URL: 200 OK")
	through := server(t, text(418, ""))
	t.Setenv("HTTP_PROXY", through)
	at := server(t, text(200, ""))
	ask(t, &probe.Asker{}, at, &api.Probe{Type: "http", Url: at}, true, "GET URL: 200 OK")
	proxy := &http.Transport{DisableKeepAlives: true, Proxy: func(*http.Request) (*url.URL, error) { return url.Parse(through) }}
	ask(t, &probe.Asker{Client: &http.Client{Transport: proxy}}, at, &api.Probe{Type: "http", Url: at}, false, "GET URL: 418 I'm a teapot, want 200")
}

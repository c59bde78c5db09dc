package reach_test

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"orch/engine/ca"
	"orch/engine/reach"
)

func server(t *testing.T, a *ca.Authority, name string) *httptest.Server {
	t.Helper()
	w, err := a.Wallet(ca.Subject{Role: ca.Engine, ID: name})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(out http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(out, name) }))
	s.TLS = w.Server()
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// An engine that is gone, one that hangs and one of another cluster don't
// keep a client from the one that answers.
func TestFindsTheOneThatAnswers(t *testing.T) {
	a, err := ca.New()
	if err != nil {
		t.Fatal(err)
	}
	b, err := ca.New()
	if err != nil {
		t.Fatal(err)
	}
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	hangs, err := net.Listen("tcp", "127.0.0.1:0") // takes connections, says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer hangs.Close()
	good, foreign := server(t, a, "good"), server(t, b, "foreign")
	w, err := a.Wallet(ca.Subject{Role: ca.Agent, ID: "me"})
	if err != nil {
		t.Fatal(err)
	}
	addresses := []string{gone.Addr().String(), hangs.Addr().String(), foreign.Listener.Addr().String(), good.Listener.Addr().String()}
	client := reach.New(func() []string { return addresses }, w.Client(ca.ProtoHTTP))
	defer client.CloseIdleConnections()
	r, err := client.Get(reach.URL)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(r.Body)
	r.Body.Close()
	if string(body) != "good" || r.ProtoMajor != 2 {
		t.Errorf("%s over %s", body, r.Proto)
	}
	addresses = []string{gone.Addr().String(), foreign.Listener.Addr().String()}
	client.CloseIdleConnections()
	if _, err := client.Get(reach.URL); err == nil || !strings.Contains(err.Error(), "connection refused") || !strings.Contains(err.Error(), "of another cluster") {
		t.Errorf("got %v", err)
	}
	addresses = nil
	if _, err := client.Get(reach.URL); err == nil || !strings.Contains(err.Error(), "no engine's address is known") {
		t.Errorf("got %v", err)
	}
}

package ca_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"orch/engine/ca"
)

func authority(t *testing.T) *ca.Authority {
	t.Helper()
	a, err := ca.New()
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func issue(t *testing.T, a *ca.Authority, role ca.Role, id string) *ca.Wallet {
	t.Helper()
	w, err := a.Wallet(ca.Subject{Role: role, ID: id})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// meet lets a client and a server shake hands; it is who the server sees.
func meet(t *testing.T, server *ca.Wallet, client *tls.Config) (ca.Identity, error) {
	t.Helper()
	state, err := handshake(t, server.Server(), client)
	return server.Identify(&state), err
}

// handshake is what the server sees of the client.
func handshake(t *testing.T, server, client *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	asked := make(chan error, 1)
	go func() {
		raw, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			asked <- err
			return
		}
		defer raw.Close()
		c := tls.Client(raw, client)
		err = c.Handshake()
		if err == nil {
			_, err = io.ReadAll(c)
		}
		asked <- err
	}()
	raw, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	s := tls.Server(raw, server)
	serverErr := s.Handshake()
	state := s.ConnectionState()
	s.Close()
	raw.Close()
	return state, errors.Join(serverErr, <-asked)
}

func TestWhoIsThere(t *testing.T) {
	a := authority(t)
	engine := issue(t, a, ca.Engine, "e1")
	for _, role := range []ca.Role{ca.Engine, ca.Agent, ca.Operator} {
		who, err := meet(t, engine, issue(t, a, role, "me").Client(ca.ProtoHTTP))
		if err != nil || who.Role != role || who.ID != "me" || !who.Verified || len(who.Key) != 64 {
			t.Errorf("%s: %v, %v", role, who, err)
		}
	}
	admin, err := a.Wallet(ca.Subject{Role: ca.Operator, ID: "ann", Level: "admin"})
	if err != nil {
		t.Fatal(err)
	}
	if who, err := meet(t, engine, admin.Client(ca.ProtoHTTP)); err != nil || who.Level != "admin" {
		t.Errorf("%v, %v", who, err)
	}
	// The authority is the same when it is read again.
	key, err := a.Key()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ca.Parse(a.Certificate(), key)
	if err != nil {
		t.Fatal(err)
	}
	if who, err := meet(t, engine, issue(t, again, ca.Agent, "me").Client(ca.ProtoRaft)); err != nil || !who.Verified {
		t.Error(who, err)
	}
	if _, err := ca.Parse(authority(t).Certificate(), key); err == nil {
		t.Error("a key of another CA was taken")
	}
}

func TestOthersStayOut(t *testing.T) {
	a, b := authority(t), authority(t)
	engine, mine, foreign := issue(t, a, ca.Engine, "e1"), issue(t, a, ca.Agent, "n1"), issue(t, b, ca.Agent, "n1")
	if _, err := meet(t, engine, foreign.Client(ca.ProtoHTTP)); err == nil || !strings.Contains(err.Error(), "of another cluster") {
		t.Errorf("it trusts an engine of another cluster: %v", err)
	}
	c := foreign.Credentials()
	c.Roots = mine.Credentials().Roots
	if err := foreign.Set(c); err != nil {
		t.Fatal(err)
	}
	if who, err := meet(t, engine, foreign.Client(ca.ProtoHTTP)); err != nil || who.Verified || who.Key == "" {
		t.Errorf("a foreign certificate: %v, %v", who, err)
	}
	// An agent's certificate doesn't make an engine.
	if _, err := meet(t, mine, mine.Client(ca.ProtoHTTP)); err == nil {
		t.Error("an agent was taken for an engine")
	}
	if _, err := meet(t, engine, mine.Client("smtp")); err == nil {
		t.Error("an unknown protocol")
	}
	if who := engine.Identify(nil); who != (ca.Identity{}) {
		t.Error(who)
	}
	// Nobody shows nothing, and is nobody.
	none, err := ca.NewWallet(ca.Credentials{Roots: mine.Credentials().Roots})
	if err != nil {
		t.Fatal(err)
	}
	if who, err := meet(t, engine, none.Client(ca.ProtoHTTP)); err != nil || who != (ca.Identity{}) {
		t.Errorf("%v, %v", who, err)
	}
}

// A certificate that has ended proves its key and no more.
func TestExpired(t *testing.T) {
	a := authority(t)
	engine := issue(t, a, ca.Engine, "e1")
	old, err := a.Wallet(ca.Subject{Role: ca.Agent, ID: "n1", Life: -time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // what is remembered of it, too
		who, err := meet(t, engine, old.Client(ca.ProtoHTTP))
		if err != nil || who.Verified || who.ID != "n1" || who.Key == "" {
			t.Errorf("%v, %v", who, err)
		}
	}
}

// While a CA is replaced all reach all; after it, who was away still finds
// the engines over the bridge, and is known by its key.
func TestRotation(t *testing.T) {
	first, second, third := authority(t), authority(t), authority(t)
	bridge := func(from, to *ca.Authority) []byte {
		b, err := from.Bridge(to)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	away := issue(t, first, ca.Agent, "away")
	engine := func(signer *ca.Authority, bridges [][]byte, roots ...*ca.Authority) *ca.Wallet {
		w := issue(t, signer, ca.Engine, "e1")
		c := w.Credentials()
		c.Bridges, c.Roots = bridges, nil
		for _, r := range roots {
			c.Roots = append(c.Roots, r.Certificate())
		}
		if err := w.Set(c); err != nil {
			t.Fatal(err)
		}
		return w
	}
	over := [][]byte{bridge(first, second)}
	twice := [][]byte{bridge(second, third), over[0]}
	for name, tc := range map[string]struct {
		engine   *ca.Wallet
		verified bool
	}{
		"both are trusted":       {engine(first, nil, first, second), true},
		"the new one signs":      {engine(second, over, second, first), true},
		"the old one is dropped": {engine(second, over, second), false},
		"and another time":       {engine(third, twice, third), false},
	} {
		if who, err := meet(t, tc.engine, away.Client(ca.ProtoHTTP)); err != nil || who.Verified != tc.verified || who.Key == "" {
			t.Errorf("%s: %v, %v", name, who, err)
		}
		// A token that was made before leads here as long as its root is trusted.
		if _, err := meet(t, tc.engine, ca.JoinClient(ca.Digest(first.Certificate()))); (err == nil) != tc.verified {
			t.Errorf("%s: joining: %v", name, err)
		}
	}
	if _, err := meet(t, engine(third, nil, third), away.Client(ca.ProtoHTTP)); err == nil {
		t.Error("it found the way without a bridge")
	}
	c := away.Credentials()
	if got := ca.Issuer(c.Certificate, [][]byte{second.Certificate(), first.Certificate()}); got != ca.Digest(first.Certificate()) {
		t.Error("the issuer is", got)
	}
}

func TestTokens(t *testing.T) {
	a := authority(t)
	engine := issue(t, a, ca.Engine, "e1")
	token := ca.NewToken(ca.Agent, ca.Digest(a.Certificate()))
	got, err := ca.ParseToken(token.String() + "\n")
	if err != nil || got != token || !got.Matches(token.Hash()) {
		t.Fatalf("%v, %v", got, err)
	}
	if other := ca.NewToken(ca.Agent, token.CA); other.Matches(token.Hash()) {
		t.Error("another secret matches")
	}
	if _, err := meet(t, engine, ca.JoinClient(token.CA)); err != nil {
		t.Error(err)
	}
	if _, err := meet(t, engine, ca.JoinClient(ca.Digest(authority(t).Certificate()))); err == nil || !strings.Contains(err.Error(), "of another cluster") {
		t.Errorf("another CA: %v", err)
	}
	for _, bad := range []string{"", "SWMTKN-1-a-b", "ORCH-2-agent-a-b-c", strings.Replace(token.String(), "agent", "operator", 1), token.String()[:60]} {
		if _, err := ca.ParseToken(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestRequests(t *testing.T) {
	key, err := ca.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	der, err := ca.Request(key)
	if err != nil {
		t.Fatal(err)
	}
	public, err := ca.ParseRequest(der)
	if err != nil || !key.PublicKey.Equal(public) {
		t.Errorf("%v, %v", public, err)
	}
	der[len(der)-1] ^= 1
	if _, err := ca.ParseRequest(der); err == nil {
		t.Error("a forged request")
	}
}

// Only engines may speak for others.
func TestPassedOn(t *testing.T) {
	a := authority(t)
	engine := issue(t, a, ca.Engine, "e1")
	var who ca.Identity
	server := httptest.NewUnstartedServer(engine.Middleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		who = ca.From(r.Context())
	})))
	server.TLS = engine.Server()
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	ann := ca.Identity{Role: ca.Operator, ID: "ann", Level: "view", Verified: true}
	for _, role := range []ca.Role{ca.Engine, ca.Agent, ca.Operator} {
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: issue(t, a, role, "me").Client(ca.ProtoHTTP), ForceAttemptHTTP2: true}}
		r, err := http.NewRequest("GET", server.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		ca.PassOn(r.Header, ann)
		out, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		out.Body.Close()
		client.CloseIdleConnections()
		if passed := who == ann; passed != (role == ca.Engine) {
			t.Errorf("%s: %v", role, who)
		}
	}
}

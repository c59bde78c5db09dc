package ca_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"orch/engine/ca"
)

func authority(t *testing.T) (*ca.Authority, string) {
	t.Helper()
	dir := t.TempDir()
	a, err := ca.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return a, dir
}

func issue(t *testing.T, a *ca.Authority, role ca.Role, id string) ca.Credentials {
	t.Helper()
	c, err := a.Issue(role, id)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// meet lets a client and a server shake hands; it is who the server sees.
func meet(t *testing.T, server, client ca.Credentials, proto string) (ca.Identity, error) {
	t.Helper()
	sc, err := server.ServerTLS()
	if err != nil {
		t.Fatal(err)
	}
	cc, err := client.ClientTLS(proto)
	if err != nil {
		t.Fatal(err)
	}
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
		c := tls.Client(raw, cc)
		err = c.Handshake()
		if err == nil {
			_, err = io.ReadAll(c) // a refused certificate shows here
		}
		asked <- err
	}()
	raw, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	s := tls.Server(raw, sc)
	serverErr := s.Handshake()
	state := s.ConnectionState()
	who := ca.Identify(&state)
	s.Close()
	raw.Close()
	return who, errors.Join(serverErr, <-asked)
}

func TestWhoIsThere(t *testing.T) {
	a, dir := authority(t)
	engine := issue(t, a, ca.Engine, "e1")
	for _, role := range []ca.Role{ca.Engine, ca.Agent, ca.Operator} {
		who, err := meet(t, engine, issue(t, a, role, "me"), ca.ProtoHTTP)
		if err != nil || who != (ca.Identity{Role: role, ID: "me"}) {
			t.Errorf("%s: %v, %v", role, who, err)
		}
	}
	// The authority is the same after a restart.
	again, err := ca.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := meet(t, engine, issue(t, again, ca.Agent, "me"), ca.ProtoRaft); err != nil {
		t.Error(err)
	}
}

func TestOthersStayOut(t *testing.T) {
	a, _ := authority(t)
	b, _ := authority(t)
	engine, mine, foreign := issue(t, a, ca.Engine, "e1"), issue(t, a, ca.Agent, "n1"), issue(t, b, ca.Agent, "n1")
	if _, err := meet(t, engine, foreign, ca.ProtoHTTP); err == nil {
		t.Error("it trusts an engine of another cluster")
	}
	foreign.CA = mine.CA
	if who, err := meet(t, engine, foreign, ca.ProtoHTTP); err == nil || who != (ca.Identity{}) {
		t.Errorf("a foreign certificate: %v, %v", who, err)
	}
	// An agent's certificate doesn't make an engine.
	if _, err := meet(t, mine, mine, ca.ProtoHTTP); err == nil {
		t.Error("an agent was taken for an engine")
	}
	if _, err := meet(t, engine, mine, "smtp"); err == nil {
		t.Error("an unknown protocol")
	}
	if who := ca.Identify(nil); who != (ca.Identity{}) {
		t.Error(who)
	}
}

func TestFiles(t *testing.T) {
	a, dir := authority(t)
	if info, err := os.Stat(filepath.Join(dir, "ca.key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	c := issue(t, a, ca.Agent, "n1")
	key, err := os.ReadFile(filepath.Join(dir, "ca.key"))
	if err != nil || bytes.Contains(append(c.CA, c.Cert...), key) {
		t.Error("the CA's key went out")
	}
	if err := os.WriteFile(filepath.Join(dir, "ca.key"), []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ca.Open(dir); err == nil || !strings.Contains(err.Error(), "the cluster's CA in "+dir+" is damaged") {
		t.Errorf("got %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "ca.key")); err != nil {
		t.Fatal(err)
	}
	if _, err := ca.Open(dir); err == nil || !strings.Contains(err.Error(), "cannot read the key of the cluster's CA") {
		t.Errorf("got %v", err)
	}
}

// A start that was killed between the two files begins anew.
func TestHalfMade(t *testing.T) {
	_, dir := authority(t)
	if err := os.Remove(filepath.Join(dir, "ca.crt")); err != nil {
		t.Fatal(err)
	}
	a, err := ca.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	c := issue(t, a, ca.Engine, "e")
	if _, err := meet(t, c, c, ca.ProtoRaft); err != nil {
		t.Error(err)
	}
}

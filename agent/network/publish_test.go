package network

import (
	"context"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
)

// echo answers each connection with its name and what it was sent.
func echo(t *testing.T, name string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				b, _ := io.ReadAll(c)
				io.WriteString(c, name+":"+string(b))
			}()
		}
	}()
	return l.Addr().String()
}

func ask(t *testing.T, address, text string) string {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, text)
	c.(*net.TCPConn).CloseWrite()
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func free(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func start(t *testing.T) *Publisher {
	p := &Publisher{Logger: slog.New(slog.DiscardHandler)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { p.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return p
}

// dialable publishes and returns once the port answers.
func dialable(t *testing.T, p *Publisher, r Route) {
	t.Helper()
	p.Publish([]Route{r})
	for {
		c, err := net.Dial("tcp", r.Address)
		if err == nil {
			c.Close()
			return
		}
		if t.Context().Err() != nil {
			t.Fatal(err)
		}
	}
}

func TestDeadTargetIsPassedOver(t *testing.T) {
	p, at := start(t), free(t)
	dialable(t, p, Route{at, []string{free(t), echo(t, "a")}})
	for range 5 {
		if got := ask(t, at, "x"); got != "a:x" {
			t.Errorf("got %q", got)
		}
	}
}

func TestConnectionIsHeldUntilATaskIsInRotation(t *testing.T) {
	p, at := start(t), free(t)
	dialable(t, p, Route{at, nil})
	var wg sync.WaitGroup
	wg.Go(func() {
		if got := ask(t, at, "x"); got != "b:x" {
			t.Errorf("got %q", got)
		}
	})
	p.Publish([]Route{{at, []string{echo(t, "b")}}})
	wg.Wait()
}

func TestSwitchLosesNoConnection(t *testing.T) {
	p, at := start(t), free(t)
	a, b := echo(t, "a"), echo(t, "b")
	dialable(t, p, Route{at, []string{a}})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				if got := ask(t, at, "x"); got != "a:x" && got != "b:x" {
					t.Errorf("got %q", got)
				}
			}
		})
	}
	for range 20 {
		p.Publish([]Route{{at, []string{b}}})
		p.Publish([]Route{{at, []string{a, b}}})
	}
	wg.Wait()
	p.Publish(nil)
}

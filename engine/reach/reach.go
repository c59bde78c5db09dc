// Package reach finds an engine that answers, of several.
package reach

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"orch/engine/ca"
)

// URL is what clients of New ask: whichever engine it leads to.
const URL = "https://" + ca.ServerName

const (
	// next is how long an address may take before the next one is tried as
	// well.
	next = 150 * time.Millisecond
	// within one of them must have answered.
	within = 5 * time.Second
	// silent connections are asked whether they live.
	silent = 2 * time.Second
)

// New makes a client (HTTP/2) that reaches the first engine to answer, the
// one that answered last before others. addresses gives host:port, and is
// asked each time.
func New(addresses func() []string, config *tls.Config) *http.Client {
	d := &dialer{addresses: addresses, config: config}
	return &http.Client{Transport: &http.Transport{
		DialTLSContext: d.dial, ForceAttemptHTTP2: true, IdleConnTimeout: time.Minute,
		HTTP2: &http.HTTP2Config{SendPingTimeout: silent, PingTimeout: silent},
	}}
}

type dialer struct {
	addresses func() []string
	config    *tls.Config

	mu   sync.Mutex
	last string
}

type answer struct {
	address string
	conn    net.Conn
	err     error
}

func (d *dialer) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	all := d.ordered()
	if len(all) == 0 {
		return nil, errors.New("no engine's address is known")
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	answers := make(chan answer)
	begun, ended := 0, 0
	begin := func() {
		address := all[begun]
		begun++
		go func() { // ends with ctx at the latest
			conn, err := (&tls.Dialer{Config: d.config}).DialContext(ctx, "tcp", address)
			select {
			case answers <- answer{address, conn, err}:
			case <-ctx.Done():
				if conn != nil {
					conn.Close()
				}
			}
		}()
	}
	begin()
	tick := time.NewTicker(next)
	defer tick.Stop()
	var failed []string
	for {
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("no engine answers (%s): %w", strings.Join(all, ", "), ctx.Err())
		case <-tick.C:
			if begun < len(all) {
				begin()
			}
		case a := <-answers:
			if a.err == nil {
				d.mu.Lock()
				d.last = a.address
				d.mu.Unlock()
				return a.conn, nil
			}
			ended++
			failed = append(failed, a.address+": "+plain(a.err))
			if begun < len(all) {
				begin()
			} else if ended == begun {
				return nil, errors.New("no engine answers: " + strings.Join(failed, "; "))
			}
		}
	}
}

// plain leaves out the addresses that the message has already.
func plain(err error) string {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err.Error()
	}
	return err.Error()
}

func (d *dialer) ordered() []string {
	all := slices.Clone(d.addresses())
	d.mu.Lock()
	defer d.mu.Unlock()
	if i := slices.Index(all, d.last); i > 0 {
		all[0], all[i] = all[i], all[0]
	}
	return all
}

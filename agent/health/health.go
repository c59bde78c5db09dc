// Package health asks tasks whether they are well. Probe asks once; Checker
// asks for as long as a task lives and says when the answer changes. It
// starts no goroutines that outlive a call.
package health

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"orch/engine/api"
)

// Defaults of a check's fields that are zero, as in Docker.
const (
	DefaultInterval = 30 * time.Second
	DefaultTimeout  = 30 * time.Second
	DefaultRetries  = 3
)

// Target is how a task is reached.
type Target struct {
	Address string // "172.18.0.2"
	// Exec runs a command in the task; output is what it printed.
	Exec func(ctx context.Context, argv []string) (exit int, output string, err error)
}

var client = &http.Client{
	Transport:     &http.Transport{DisableKeepAlives: true, Proxy: nil},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// Probe asks once, for as long as ctx lasts; nil means well. http_status 0
// accepts 200 to 399. A redirect is an answer and isn't followed.
func Probe(ctx context.Context, c *api.HealthCheck, t Target) error {
	address := net.JoinHostPort(t.Address, strconv.Itoa(int(c.Port)))
	switch c.Type {
	case "http":
		return probeHTTP(ctx, c, "http://"+address+"/"+strings.TrimPrefix(c.HttpPath, "/"))
	case "tcp":
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", address)
		if err != nil {
			return fmt.Errorf("tcp %s: %w", address, cause(err))
		}
		return conn.Close()
	case "cmd":
		if t.Exec == nil {
			return errors.New("the runtime can't run commands in a task")
		}
		exit, output, err := t.Exec(ctx, c.Command)
		if err != nil {
			return fmt.Errorf("%s: %w", strings.Join(c.Command, " "), cause(err))
		}
		if exit != 0 {
			return fmt.Errorf("%s: exit %d: %s", strings.Join(c.Command, " "), exit, firstLine(output))
		}
		return nil
	}
	return fmt.Errorf("unknown health check type %q", c.Type)
}

func probeHTTP(ctx context.Context, c *api.HealthCheck, where string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, where, nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "orch-health")
	res, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("GET %s: %w", where, cause(err))
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(res.Body, 512))
	ok := res.StatusCode >= 200 && res.StatusCode < 400
	if c.HttpStatus != 0 {
		ok = res.StatusCode == int(c.HttpStatus)
	}
	if !ok {
		return fmt.Errorf("GET %s: %s: %s", where, res.Status, firstLine(string(body)))
	}
	return nil
}

// cause is the innermost words of a network error.
func cause(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return errors.New("no answer in time")
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	for _, sys := range []error{errRefused, errNoRoute, errReset} {
		if errors.Is(err, sys) {
			return sys
		}
	}
	return err
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	if len(line) > 200 {
		line = line[:200]
	}
	return line
}

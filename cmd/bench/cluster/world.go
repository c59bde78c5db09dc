package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"orch/cmd/internal/hosts"
)

// world is the hosts and what their Dockers say.
type world struct {
	*hosts.Set
	clients map[*hosts.Host]*http.Client
}

func newWorld(set *hosts.Set) *world {
	w := &world{Set: set, clients: map[*hosts.Host]*http.Client{}}
	for _, h := range set.Hosts {
		w.clients[h] = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", h.Docker)
		}}}
	}
	return w
}

// but is all hosts without one.
func (w *world) but(out int) []*hosts.Host {
	var rest []*hosts.Host
	for i, h := range w.Hosts {
		if i != out {
			rest = append(rest, h)
		}
	}
	return rest
}

// ask is a request to a host's Docker; a nil answer is thrown away.
func (w *world) ask(ctx context.Context, h *hosts.Host, method, path string, body, answer any) error {
	var content bytes.Buffer
	if body != nil {
		if err := json.NewEncoder(&content).Encode(body); err != nil {
			return err
		}
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://docker"+path, &content)
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	a, err := w.clients[h].Do(r)
	if err != nil {
		return err
	}
	defer a.Body.Close()
	if a.StatusCode >= 300 {
		var told struct{ Message string }
		_ = json.NewDecoder(a.Body).Decode(&told)
		return fmt.Errorf("%s %s: %s: %s", method, path, a.Status, told.Message)
	}
	if answer == nil {
		return nil
	}
	return json.NewDecoder(a.Body).Decode(answer)
}

// container is one that runs.
type container struct {
	ID    string
	Image string
	on    *hosts.Host
}

// running lists the containers of the bench's images that run on some hosts.
func (w *world) running(ctx context.Context, on []*hosts.Host) ([]container, error) {
	found := make([][]container, len(on))
	var all errgroup.Group
	for i, h := range on {
		all.Go(func() error { return w.ask(ctx, h, http.MethodGet, "/containers/json", nil, &found[i]) })
	}
	if err := all.Wait(); err != nil {
		return nil, err
	}
	var ours []container
	for i, h := range on {
		for _, c := range found[i] {
			if strings.HasPrefix(c.Image, "orch-bench/") {
				c.on = h
				ours = append(ours, c)
			}
		}
	}
	return ours, nil
}

// until looks at what runs on some hosts, each 20 ms, until that is as it
// should be. It takes two minutes at most.
func (w *world) until(ctx context.Context, on []*hosts.Host, what string, good func([]container) bool) error {
	last := 0
	err := poll(ctx, 2*time.Minute, 20*time.Millisecond, func(ctx context.Context) (bool, error) {
		now, err := w.running(ctx, on)
		last = len(now)
		return err == nil && good(now), err
	})
	if err != nil {
		return fmt.Errorf("%s: %w; %d run", what, err, last)
	}
	return nil
}

// poll calls try until it says true. Its last error is told when time is up.
func poll(ctx context.Context, limit, every time.Duration, try func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(every)
	defer tick.Stop()
	var last error
	for {
		done, err := try(ctx)
		if done {
			return nil
		}
		if err != nil && ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			if last != nil {
				return fmt.Errorf("not within %v: %w", limit, last)
			}
			return fmt.Errorf("not within %v", limit)
		case <-tick.C:
		}
	}
}

func count(n int) func([]container) bool {
	return func(all []container) bool { return len(all) == n }
}

func docker(ctx context.Context, h *hosts.Host, args ...string) (string, error) {
	return output(exec.CommandContext(ctx, "docker", append([]string{"-H", "unix://" + h.Docker}, args...)...))
}

func output(cmd *exec.Cmd) (string, error) {
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.WaitDelay = 2 * time.Second
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(errs.String()))
	}
	return strings.TrimSpace(out.String()), nil
}

package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const convergencePort = 9090

// Convergence replaces a service's only task again and again, on three hosts,
// and gives for each new one how long after its first good health check the
// last of the hosts sent it a request. Requests are held while there is no
// task, so the first answer on a host tells when it knew.
func Convergence(ctx context.Context, binary string, times int) (took []time.Duration, err error) {
	err = onHosts(ctx, func(ctx context.Context, w *world) error {
		o, err := newOrch(w, binary)
		if err != nil {
			return err
		}
		if err := o.form(ctx); err != nil {
			return err
		}
		took, err = o.convergence(ctx, times)
		return errors.Join(err, o.end(ctx))
	})
	return took, err
}

func (o *orch) convergence(ctx context.Context, times int) ([]time.Duration, error) {
	playbook := filepath.Join(o.Dir, "front.star")
	text := fmt.Sprintf(`stack("front", services = [service("web", image = %q, ports = [port(8888, publish = %d)], stop_grace = "1s", env = {"ROUND": param("round", default = "0")},
    health = health.http("/health", port = 8888, interval = "100ms"), update = rollout(order = "stop-first", monitor = "0s"))])
`, image1, convergencePort)
	if err := os.WriteFile(playbook, []byte(text), 0o644); err != nil {
		return nil, err
	}
	run := func(round int) error {
		_, err := o.run(ctx, o.Hosts[0], "", "run", playbook, "--set", fmt.Sprintf("round=%d", round))
		return err
	}
	if err := run(0); err != nil {
		return nil, err
	}
	asking, stop := context.WithCancel(ctx)
	defer stop()
	var mu sync.Mutex
	first := map[string]map[string]time.Time{} // by container's host name, then by host: its first answer
	var work sync.WaitGroup
	for _, h := range o.Hosts {
		work.Go(func() {
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
			for asking.Err() == nil {
				name, at := ask(asking, client, fmt.Sprintf("http://%s:%d/", h.Addr, convergencePort))
				mu.Lock()
				if first[name] == nil {
					first[name] = map[string]time.Time{}
				}
				if first[name][h.Name].IsZero() {
					first[name][h.Name] = at
				}
				mu.Unlock()
			}
		})
	}
	ready := map[string]time.Time{} // by container's host name
	for i := range times {
		if err := run(i + 1); err != nil {
			return nil, err
		}
		out, err := o.run(ctx, o.Hosts[0], "", "ps", "front", "-o", "json")
		if err != nil {
			return nil, err
		}
		var tasks []struct {
			Status struct {
				Ready      bool      `json:"ready"`
				RuntimeID  string    `json:"runtime_id"`
				ReadySince time.Time `json:"ready_since"`
			} `json:"status"`
		}
		if err := json.Unmarshal([]byte(out), &tasks); err != nil {
			return nil, err
		}
		for _, t := range tasks {
			if t.Status.Ready && len(t.Status.RuntimeID) >= 12 {
				ready[t.Status.RuntimeID[:12]] = t.Status.ReadySince
			}
		}
	}
	stop()
	work.Wait()
	var all []time.Duration
	for name, since := range ready {
		last := time.Duration(0)
		for _, at := range first[name] {
			last = max(last, at.Sub(since))
		}
		if len(first[name]) == len(o.Hosts) && !since.IsZero() {
			all = append(all, last)
		}
	}
	if len(all) < times/2 {
		return nil, fmt.Errorf("only %d of %d tasks were seen on all hosts", len(all), times)
	}
	return all, nil
}

// ask gives the first line of an answer, and when it came.
func ask(ctx context.Context, client *http.Client, url string) (line string, at time.Time) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", time.Now()
	}
	a, err := client.Do(r)
	if err != nil {
		return "", time.Now()
	}
	at = time.Now()
	defer a.Body.Close()
	b, _ := io.ReadAll(a.Body)
	line, _, _ = strings.Cut(string(b), "\n")
	return line, at
}

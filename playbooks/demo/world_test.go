package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// The real thing: real InfluxDB and Telegraf, run by a real orch from
// tick.star, on each runtime. The programs are built once and kept where
// `make demo` keeps them.

func TestTickOnDocker(t *testing.T) {
	if testing.Short() {
		t.Skip("runs real containers: not with -short")
	}
	if _, err := FindDocker(context.Background()); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	tick(t, "docker")
}

func TestTickOnProcesses(t *testing.T) {
	if testing.Short() {
		t.Skip("runs real programs: not with -short")
	}
	tick(t, "process")
}

func tick(t *testing.T, runtime string) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	orch := filepath.Join(dir, "orch")
	build := exec.Command("go", "build", "-o", orch, "./cmd/orch")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("cannot build orch: %v\n%s", err, out)
	}
	user, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	p := &Preparer{Cache: filepath.Join(user, "orch", "demo"), Runtime: runtime, Say: t.Logf}
	params, err := p.Prepare(ctx)
	if err != nil {
		t.Fatal(err)
	}
	influx := freePort(t)
	params["influxdb_port"] = strconv.Itoa(influx)
	run := &Run{
		Orch: orch, Playbook: filepath.Join(root, "playbooks", "tick.star"), Params: params,
		Home: filepath.Join(dir, "state"), Path: p.Bin(), Port: freePort(t), Say: t.Logf,
		Inspect: func(ctx context.Context) error {
			return telegrafWrites(ctx, fmt.Sprintf("http://127.0.0.1:%d", influx))
		},
	}
	if err := run.Check(ctx, 2*time.Minute, p.Docker); err != nil {
		t.Fatal(err)
	}
}

// telegrafWrites looks that InfluxDB holds readings of Telegraf's, a recent
// one among them, and that more come in.
func telegrafWrites(ctx context.Context, influx string) error {
	first, err := lastUsage(ctx, influx)
	if err != nil {
		return err
	}
	if age := time.Since(first); age > time.Minute {
		return fmt.Errorf("Telegraf's last reading is %s old", age)
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	again := time.NewTicker(200 * time.Millisecond)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("no reading came after that of %s", first)
		case <-again.C:
		}
		next, err := lastUsage(ctx, influx)
		if err != nil {
			return err
		}
		if next.After(first) {
			return nil
		}
	}
}

func lastUsage(ctx context.Context, influx string) (time.Time, error) {
	q := url.Values{"db": {"telegraf"}, "epoch": {"ms"}, "q": {"SELECT last(usage_user) FROM cpu WHERE cpu = 'cpu-total'"}}
	var answer struct {
		Results []struct {
			Series []struct{ Values [][]json.Number }
		}
	}
	if err := getJSON(ctx, influx+"/query?"+q.Encode(), "", &answer); err != nil {
		return time.Time{}, err
	}
	for _, r := range answer.Results {
		for _, s := range r.Series {
			ms, err := s.Values[0][0].Int64()
			return time.UnixMilli(ms), err
		}
	}
	return time.Time{}, fmt.Errorf("InfluxDB at %s has no usage_user in cpu", influx)
}

package main

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	image  = "orch-bench/server:1"
	twelve = 12

	benchNetwork = "orch-bench"
)

// prepare makes the image: one static program that serves HTTP.
func (b *bench) prepare(ctx context.Context) error {
	if _, err := docker(ctx, "version"); err != nil {
		return fmt.Errorf("it needs Docker and its CLI: %w", err)
	}
	program := filepath.Join(b.dir, "server")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, "orch/cmd/dashboard")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if _, err := output(build); err != nil {
		return err
	}
	content, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	if err := w.WriteHeader(&tar.Header{Name: "server", Mode: 0o755, Size: int64(len(content))}); err != nil {
		return err
	}
	if _, err := w.Write(content); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "docker", "import", "-c", `ENTRYPOINT ["/server"]`, "-", image)
	cmd.Stdin = &archive
	_, err = output(cmd)
	return err
}

// playbook writes one service of twelve replicas.
func (b *bench) playbook(stack, tag string) (string, error) {
	path := filepath.Join(b.dir, stack+".star")
	return path, os.WriteFile(path, []byte(fmt.Sprintf(`stack(%q, services = [service("web", image = %q, replicas = %d, env = {"TAG": %q},
    health = health.http("/health", port = 8888, interval = "1s"), stop_grace = "1s", drain = "0s",
    update = rollout(parallelism = 2, monitor = "100ms"))])
`, stack, image, twelve, tag)), 0o600)
}

// daemon starts a cluster of its own; the function ends it.
func (b *bench) daemon(ctx context.Context, name string) (home string, down func(), err error) {
	home = filepath.Join(b.dir, name)
	path := filepath.Join(b.dir, "empty.star")
	if err := os.WriteFile(path, []byte(`stack("empty", services = [])`+"\n"), 0o600); err != nil {
		return "", nil, err
	}
	if _, err := b.orchRun(ctx, home, "run", "-d", path); err != nil {
		return "", nil, err
	}
	return home, func() { _, _ = b.orchRun(context.WithoutCancel(ctx), home, "down") }, nil
}

// bare starts containers side by side with the docker CLI, on Docker's default
// bridge or on a network, and removes them outside the measurement.
func (b *bench) bare(ctx context.Context, n int, network string) (time.Duration, error) {
	took, err := timed(func() error {
		return parallel(n, func(i int) error {
			_, err := docker(ctx, "run", "-d", "--network", network, "--name", "orch-bench-bare-"+strconv.Itoa(i), image)
			return err
		})
	})
	for i := range n {
		_, _ = docker(context.WithoutCancel(ctx), "rm", "-f", "orch-bench-bare-"+strconv.Itoa(i))
	}
	return took, err
}

// start compares `orch run` of twelve replicas, healthy at its end, with
// twelve parallel bare `docker run -d`, round by round in turn.
func (b *bench) start(ctx context.Context) error {
	if err := b.prepare(ctx); err != nil {
		return err
	}
	home, down, err := b.daemon(ctx, "start")
	if err != nil {
		return err
	}
	defer down()
	if _, err := docker(ctx, "network", "create", benchNetwork); err != nil {
		return err
	}
	defer func() { _, _ = docker(context.WithoutCancel(ctx), "network", "rm", benchNetwork) }()
	var bare, alike, warm, cold []time.Duration
	for i := range b.rounds {
		d, err := b.bare(ctx, twelve, "bridge")
		if err != nil {
			return err
		}
		bare = append(bare, d)
		if d, err = b.bare(ctx, twelve, benchNetwork); err != nil {
			return err
		}
		alike = append(alike, d)
		path, err := b.playbook(fmt.Sprintf("start-%d", i), "1")
		if err != nil {
			return err
		}
		d, err = timed(func() error { _, err := b.orchRun(ctx, home, "run", path); return err })
		if err != nil {
			return err
		}
		warm = append(warm, d)
		if _, err := b.orchRun(ctx, home, "stack", "rm", fmt.Sprintf("start-%d", i)); err != nil {
			return err
		}
		own := filepath.Join(b.dir, fmt.Sprintf("cold-%d", i))
		d, err = timed(func() error { _, err := b.orchRun(ctx, own, "run", "-d", path); return err })
		if _, downErr := b.orchRun(context.WithoutCancel(ctx), own, "down"); err == nil {
			err = downErr
		}
		if err != nil {
			return err
		}
		cold = append(cold, d)
	}
	peer := median(bare)
	b.rows = append(b.rows,
		row{"orch run, 12 replicas healthy, cluster running", median(warm), peer, "12 parallel docker run -d", "1.3", "orch's are on a network of their own and passed a health check"},
		row{"the same", median(warm), median(alike), "the same on a network of their own", "", "which exists already, without health checks"},
		row{"the same, cluster made by the same command", median(cold), peer, "12 parallel docker run -d", "1.3", ""})
	return nil
}

type task struct {
	ID     string `json:"id"`
	Status struct {
		Ready     bool   `json:"ready"`
		RuntimeID string `json:"runtime_id"`
	} `json:"status"`
}

func (b *bench) tasks(ctx context.Context, home, stack string) (all []task, err error) {
	out, err := b.orchRun(ctx, home, "ps", stack, "-o", "json")
	if err == nil {
		err = json.Unmarshal([]byte(out), &all)
	}
	return all, err
}

// heal kills one container of twelve and waits until its successor is ready.
func (b *bench) heal(ctx context.Context) error {
	if err := b.prepare(ctx); err != nil {
		return err
	}
	home, down, err := b.daemon(ctx, "heal")
	if err != nil {
		return err
	}
	defer down()
	path, err := b.playbook("heal", "1")
	if err != nil {
		return err
	}
	if _, err := b.orchRun(ctx, home, "run", path); err != nil {
		return err
	}
	select { // a task that was healthy for a while is replaced at once
	case <-time.After(11 * time.Second):
	case <-ctx.Done():
		return ctx.Err()
	}
	var heal, bare []time.Duration
	for i := range min(b.rounds, twelve) {
		all, err := b.tasks(ctx, home, "heal")
		if err != nil {
			return err
		}
		victim := ""
		for _, t := range all {
			if strings.HasPrefix(t.ID, fmt.Sprintf("heal/web.%d#", i+1)) {
				victim = t.Status.RuntimeID
			}
		}
		d, err := timed(func() error {
			if _, err := docker(ctx, "kill", victim); err != nil {
				return err
			}
			return b.healed(ctx, home, fmt.Sprintf("heal/web.%d#2", i+1))
		})
		if err != nil {
			return err
		}
		heal = append(heal, d)
		if d, err = b.bare(ctx, 1, "bridge"); err != nil {
			return err
		}
		bare = append(bare, d)
	}
	b.rows = append(b.rows, row{"docker kill of one of 12, to its successor healthy", median(heal), median(bare), "one docker run -d", "under 1s", "docker kill included"})
	return nil
}

func (b *bench) healed(ctx context.Context, home, id string) error {
	for ctx.Err() == nil {
		all, err := b.tasks(ctx, home, "heal")
		if err != nil {
			return err
		}
		for _, t := range all {
			if t.ID == id && t.Status.Ready {
				return nil
			}
		}
	}
	return ctx.Err()
}

// update compares a rolling update of twelve by two with the same by hand:
// two parallel docker run, two parallel docker rm, six times.
func (b *bench) update(ctx context.Context) error {
	if err := b.prepare(ctx); err != nil {
		return err
	}
	home, down, err := b.daemon(ctx, "update")
	if err != nil {
		return err
	}
	defer down()
	var ours, hand []time.Duration
	for i := range b.rounds + 1 {
		path, err := b.playbook("update", strconv.Itoa(i))
		if err != nil {
			return err
		}
		d, err := timed(func() error { _, err := b.orchRun(ctx, home, "run", path); return err })
		if err != nil {
			return err
		}
		if i == 0 {
			continue // the first is no update
		}
		ours = append(ours, d)
		if d, err = b.byHand(ctx); err != nil {
			return err
		}
		hand = append(hand, d)
	}
	b.rows = append(b.rows, row{"rolling update of 12 by 2, monitor 0.1 s", median(ours), median(hand), "the same by hand, unwatched", "", "each batch healthy before the next"})
	return nil
}

func (b *bench) byHand(ctx context.Context) (time.Duration, error) {
	name := func(version string, i int) string { return fmt.Sprintf("orch-bench-%s-%d", version, i) }
	run := func(version string, i int) error {
		_, err := docker(ctx, "run", "-d", "--name", name(version, i), image)
		return err
	}
	defer func() {
		for i := range twelve {
			_, _ = docker(context.WithoutCancel(ctx), "rm", "-f", name("old", i), name("new", i))
		}
	}()
	if err := parallel(twelve, func(i int) error { return run("old", i) }); err != nil {
		return 0, err
	}
	return timed(func() error {
		for batch := range twelve / 2 {
			if err := parallel(2, func(i int) error { return run("new", 2*batch+i) }); err != nil {
				return err
			}
			err := parallel(2, func(i int) error { _, err := docker(ctx, "stop", "-t", "1", name("old", 2*batch+i)); return err })
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// idle tells the memory of engine and agent with three services running.
func (b *bench) idle(ctx context.Context) error {
	home := filepath.Join(b.dir, "idle")
	path := filepath.Join(b.dir, "idle.star")
	text := `stack("idle", services = [service("s%d" % i, runtime = "process", command = ["sleep", "1000"], stop_grace = "1s") for i in range(3)])` + "\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return err
	}
	if _, err := b.orchRun(ctx, home, "run", "-d", path); err != nil {
		return err
	}
	defer func() { _, _ = b.orchRun(context.WithoutCancel(ctx), home, "down") }()
	select {
	case <-time.After(10 * time.Second):
	case <-ctx.Done():
		return ctx.Err()
	}
	var target struct{ PID int }
	content, err := os.ReadFile(filepath.Join(home, "operator.json"))
	if err == nil {
		err = json.Unmarshal(content, &target)
	}
	if err != nil {
		return err
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", target.PID))
	if err != nil {
		return err
	}
	kb := 0
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, _ = strconv.Atoi(strings.Fields(rest)[0])
		}
	}
	info, err := os.Stat(b.orch)
	if err != nil {
		return err
	}
	b.rows = append(b.rows,
		row{what: "engine and agent, idle, resident memory", goal: "under 60 MiB", note: fmt.Sprintf("%.1f MiB", float64(kb)/1024)},
		row{what: "the binary", goal: "under 40 MiB", note: fmt.Sprintf("%.1f MiB", float64(info.Size())/(1<<20))})
	return nil
}

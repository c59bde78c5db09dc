package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"orch/cmd/internal/hosts"
)

// orch is orch with three engines, told what to do by its command line.
type orch struct {
	*world
	binary   string
	playbook string
}

// newOrch copies the binary to where all hosts see it.
func newOrch(w *world, binary string) (*orch, error) {
	o := &orch{world: w, binary: filepath.Join(w.Dir, "orch"), playbook: filepath.Join(w.Dir, "web.star")}
	from, err := os.Open(binary)
	if err != nil {
		return nil, err
	}
	defer from.Close()
	to, err := os.OpenFile(o.binary, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(to, from); err != nil {
		return nil, errors.Join(err, to.Close())
	}
	if err := to.Close(); err != nil {
		return nil, err
	}
	return o, os.WriteFile(o.playbook, []byte(`stack("bench", services = [service("web", image = param("image"), replicas = 12, stop_grace = "1s", drain = "0s",
    update = rollout(parallelism = 2, order = "start-first", monitor = "100ms"))])
`), 0o644)
}

// run runs orch on a host.
func (o *orch) run(ctx context.Context, h *hosts.Host, stdin string, args ...string) (string, error) {
	cmd := h.Command(ctx, o.binary, args...)
	cmd.Env = append(cmd.Env, "ORCH_HOME=/var/lib/orch")
	cmd.Stdin = strings.NewReader(stdin)
	return output(cmd)
}

func (o *orch) form(ctx context.Context) error {
	first := o.Hosts[0]
	if _, err := o.run(ctx, first, "", "cluster", "init", "--advertise", first.Addr+":4747"); err != nil {
		return err
	}
	token, err := o.run(ctx, first, "", "cluster", "token", "-q", "engine")
	if err != nil {
		return err
	}
	for _, h := range o.Hosts[1:] {
		if _, err := o.run(ctx, h, "", "join", "--token", token, "--advertise", h.Addr+":4747", first.Addr+":4747"); err != nil {
			return err
		}
	}
	return o.whole(ctx)
}

func (o *orch) end(ctx context.Context) error {
	for _, h := range o.Hosts {
		if log, err := os.ReadFile(h.Path("/var/lib/orch/engine.log")); err == nil && os.Getenv("BENCH_LOGS") != "" {
			_ = os.WriteFile(filepath.Join(os.Getenv("BENCH_LOGS"), h.Name+".log"), log, 0o644)
		}
	}
	var all errgroup.Group
	for _, h := range o.Hosts {
		all.Go(func() error { return h.KillAll("orch") })
	}
	return errors.Join(all.Wait(), removeAll(ctx, o.world))
}

type orchInfo struct {
	Engines []struct {
		Name   string `json:"name"`
		State  string `json:"state"`
		Reason string `json:"reason"`
	} `json:"engines"`
}

func (o *orch) info(ctx context.Context, h *hosts.Host) (info orchInfo, err error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	out, err := o.run(ctx, h, "", "cluster", "info", "-o", "json")
	if err != nil {
		return info, err
	}
	return info, json.Unmarshal([]byte(out), &info)
}

func (o *orch) whole(ctx context.Context) error {
	return poll(ctx, time.Minute, 100*time.Millisecond, func(ctx context.Context) (bool, error) {
		for _, h := range o.Hosts {
			info, err := o.info(ctx, h)
			if err != nil {
				return false, err
			}
			leads := 0
			for _, e := range info.Engines {
				switch e.State {
				case "leader":
					leads++
				case "voter":
				default:
					return false, fmt.Errorf("%s is %s: %s", e.Name, e.State, e.Reason)
				}
			}
			if leads != 1 || len(info.Engines) != len(o.Hosts) {
				return false, fmt.Errorf("%s sees %+v", h.Name, info.Engines)
			}
		}
		return o.up(ctx)
	})
}

// up says whether all nodes run tasks.
func (o *orch) up(ctx context.Context) (bool, error) {
	out, err := o.run(ctx, o.Hosts[0], "", "node", "ls", "-o", "json")
	if err != nil {
		return false, err
	}
	var nodes []struct {
		Name   string `json:"name"`
		Status string `json:"status"`
	}
	if err := json.Unmarshal([]byte(out), &nodes); err != nil {
		return false, err
	}
	for _, n := range nodes {
		if n.Status != "up" {
			return false, fmt.Errorf("node %s is %s", n.Name, n.Status)
		}
	}
	return len(nodes) == len(o.Hosts), nil
}

func (o *orch) leader(ctx context.Context) (int, error) {
	info, err := o.info(ctx, o.Hosts[0])
	if err != nil {
		return 0, err
	}
	for _, e := range info.Engines {
		for i, h := range o.Hosts {
			if e.State == "leader" && e.Name == h.Name {
				return i, nil
			}
		}
	}
	return 0, fmt.Errorf("none of %v leads", info.Engines)
}

func (o *orch) deploy(ctx context.Context, image string) error {
	_, err := o.run(ctx, o.Hosts[0], "", "run", o.playbook, "--set", "image="+image)
	return err
}

func (o *orch) fail(ctx context.Context, image string) error {
	err := o.deploy(ctx, image)
	if err == nil {
		return fmt.Errorf("an image that can't run was deployed")
	}
	if !strings.Contains(err.Error(), "failed") {
		return err
	}
	return ctx.Err()
}

func (o *orch) remove(ctx context.Context) error {
	_, err := o.run(ctx, o.Hosts[0], "", "stack", "rm", "bench")
	if err != nil && strings.Contains(err.Error(), `no stack`) {
		return nil // the first time
	}
	return err
}

func (o *orch) write(ctx context.Context, h *hosts.Host, name string) error {
	_, err := o.run(ctx, h, "x", "secret", "create", name, "-")
	return err
}

func (o *orch) drain(ctx context.Context, h *hosts.Host) error {
	_, err := o.run(ctx, o.Hosts[0], "", "node", "drain", h.Name)
	return err
}

func (o *orch) activate(ctx context.Context, h *hosts.Host) error {
	_, err := o.run(ctx, o.Hosts[0], "", "node", "activate", h.Name)
	return err
}

// memory is that of engine and agent, which are one process.
func (o *orch) memory(h *hosts.Host) (uint64, error) {
	return h.Memory("orch", "orch-mesh", "orch-ingress")
}

func (o *orch) stop(h *hosts.Host, signal syscall.Signal) error { return h.Signal(signal, "orch") }

// start runs the daemon again, as a unit would.
func (o *orch) start(ctx context.Context, h *hosts.Host) error {
	if err := poll(ctx, 20*time.Second, 20*time.Millisecond, func(context.Context) (bool, error) {
		all, err := h.Processes("orch")
		return len(all) == 0, err
	}); err != nil {
		return err
	}
	cmd := h.Command(context.WithoutCancel(ctx), o.binary, "agent")
	cmd.Env = append(cmd.Env, "ORCH_HOME=/var/lib/orch")
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() { _ = cmd.Wait() }() // ends with the host
	return nil
}

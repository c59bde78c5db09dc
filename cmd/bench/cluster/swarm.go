package cluster

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"orch/cmd/internal/hosts"
)

// swarm is Docker Swarm with three managers. Its service is on a network of its
// own, as orch's is, but has no published ports and no virtual address, which
// need IPVS.
type swarm struct {
	*world
	deployed bool
}

func (s *swarm) form(ctx context.Context) error {
	first := s.Hosts[0]
	if _, err := docker(ctx, first, "swarm", "init", "--advertise-addr", first.Addr); err != nil {
		return err
	}
	token, err := docker(ctx, first, "swarm", "join-token", "-q", "manager")
	if err != nil {
		return err
	}
	for _, h := range s.Hosts[1:] {
		if _, err := docker(ctx, h, "swarm", "join", "--token", token, "--advertise-addr", h.Addr, first.Addr+":2377"); err != nil {
			return err
		}
	}
	if _, err := docker(ctx, first, "network", "create", "--driver", "overlay", "bench"); err != nil {
		return err
	}
	return s.whole(ctx)
}

func (s *swarm) end(ctx context.Context) error {
	var all errgroup.Group
	for _, h := range s.Hosts {
		all.Go(func() error { _, err := docker(ctx, h, "swarm", "leave", "--force"); return err })
	}
	if err := all.Wait(); err != nil {
		return err
	}
	return removeAll(ctx, s.world)
}

// whole asks each manager in turn: one that can't say sees no leader.
func (s *swarm) whole(ctx context.Context) error {
	return poll(ctx, time.Minute, 100*time.Millisecond, func(ctx context.Context) (bool, error) {
		for _, h := range s.Hosts {
			ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
			nodes, err := s.nodes(ctx, h)
			cancel()
			if err != nil {
				return false, err
			}
			for _, n := range nodes {
				if n.Status.State != "ready" || n.ManagerStatus.Reachability != "reachable" {
					return false, fmt.Errorf("%s is %s and %s", n.Description.Hostname, n.Status.State, n.ManagerStatus.Reachability)
				}
			}
			if len(nodes) != len(s.Hosts) {
				return false, fmt.Errorf("%d nodes", len(nodes))
			}
		}
		return true, nil
	})
}

type swarmNode struct {
	ID            string
	Description   struct{ Hostname string }
	Status        struct{ State string }
	ManagerStatus struct {
		Leader       bool
		Reachability string
	}
}

func (s *swarm) nodes(ctx context.Context, h *hosts.Host) (all []swarmNode, err error) {
	return all, s.ask(ctx, h, http.MethodGet, "/nodes", nil, &all)
}

func (s *swarm) leader(ctx context.Context) (int, error) {
	nodes, err := s.nodes(ctx, s.Hosts[0])
	if err != nil {
		return 0, err
	}
	for _, n := range nodes {
		for i, h := range s.Hosts {
			if n.ManagerStatus.Leader && n.Description.Hostname == h.Name {
				return i, nil
			}
		}
	}
	return 0, fmt.Errorf("none of %v leads", nodes)
}

func (s *swarm) deploy(ctx context.Context, image string) error {
	update := "--update-parallelism 2 --update-monitor 100ms --update-delay 0s --update-order start-first --update-failure-action rollback --rollback-parallelism 2 --rollback-monitor 100ms --rollback-order start-first --no-resolve-image --detach"
	if s.deployed {
		_, err := docker(ctx, s.Hosts[0], strings.Fields("service update "+update+" --image "+image+" web")...)
		return err
	}
	s.deployed = true
	_, err := docker(ctx, s.Hosts[0], strings.Fields("service create "+update+" --name web --network bench --replicas 12 --endpoint-mode dnsrr --restart-delay 0s "+image)...)
	return err
}

func (s *swarm) fail(ctx context.Context, image string) error {
	if err := s.deploy(ctx, image); err != nil {
		return err
	}
	for {
		var is struct {
			UpdateStatus struct{ State, Message string }
		}
		if err := s.ask(ctx, s.Hosts[0], http.MethodGet, "/services/web", nil, &is); err != nil {
			return err
		}
		switch is.UpdateStatus.State {
		case "rollback_completed":
			return nil
		case "paused", "rollback_paused":
			return fmt.Errorf("it is %s: %s", is.UpdateStatus.State, is.UpdateStatus.Message)
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

func (s *swarm) remove(ctx context.Context) error {
	if !s.deployed {
		return nil
	}
	s.deployed = false
	_, err := docker(ctx, s.Hosts[0], "service", "rm", "web")
	return err
}

// write makes a config, without a process of its own: as cheap as it gets.
func (s *swarm) write(ctx context.Context, h *hosts.Host, name string) error {
	return s.ask(ctx, h, http.MethodPost, "/configs/create", map[string]any{"Name": name, "Data": "eA=="}, nil)
}

func (s *swarm) drain(ctx context.Context, h *hosts.Host) error {
	_, err := docker(ctx, s.Hosts[0], "node", "update", "--availability", "drain", h.Name)
	return err
}

func (s *swarm) activate(ctx context.Context, h *hosts.Host) error {
	_, err := docker(ctx, s.Hosts[0], "node", "update", "--availability", "active", h.Name)
	return err
}

func (s *swarm) memory(h *hosts.Host) (uint64, error) { return h.Memory("dockerd") }

package engine_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"orch/engine"
	"orch/engine/api"
	"orch/engine/api/apiconnect"
	"orch/engine/ca"
)

func open(t *testing.T, dir string) *engine.Engine {
	t.Helper()
	e, err := engine.Open(engine.Config{Dir: dir, Evaluator: evaluator{}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// evaluator takes a bundle's hash for its stack's name.
type evaluator struct{}

func (evaluator) Evaluate(_ context.Context, b *api.Bundle, _ string) (*api.StackSpec, []string, error) {
	if b.Hash == "bad" {
		return nil, nil, errors.New("web.star:1:1: no such builtin")
	}
	return &api.StackSpec{Name: b.Hash, Services: []*api.ServiceSpec{{
		Name: "app", Mode: "replicated", Replicas: 1, Task: &api.TaskSpec{Runtime: "process", Command: []string{"sleep"}},
	}}}, []string{"web.star:1:1: warning: look"}, nil
}

// work runs an engine until the function it returns is called.
func work(t *testing.T, e *engine.Engine) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	select {
	case <-e.Ready():
	case err := <-done:
		t.Fatal("it ended: ", err)
	}
	return func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}
}

func client(t *testing.T, e *engine.Engine, role ca.Role) apiconnect.ClusterServiceClient {
	t.Helper()
	creds, err := e.Issue(role, "me")
	if err != nil {
		t.Fatal(err)
	}
	config, err := creds.ClientTLS(ca.ProtoHTTP)
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
	t.Cleanup(tr.CloseIdleConnections)
	return apiconnect.NewClusterServiceClient(&http.Client{Transport: tr}, "https://"+e.Address(), connect.WithGRPC())
}

// A cluster is the same after a restart: its id, its node, its releases.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	e := open(t, dir)
	stop := work(t, e)
	id, cluster := e.ID(), e.ClusterID()
	r, err := client(t, e, ca.Operator).Apply(t.Context(), connect.NewRequest(&api.ApplyRequest{Bundle: &api.Bundle{Hash: "web"}}))
	if err != nil || r.Msg.Release != 1 || !r.Msg.Changed || len(r.Msg.Warnings) != 1 {
		t.Fatal(r, err)
	}
	stop()
	e = open(t, dir)
	defer work(t, e)()
	if e.ID() != id || e.ClusterID() != cluster || len(id) != 16 || cluster == "" {
		t.Errorf("%s in %s was %s in %s", e.ID(), e.ClusterID(), id, cluster)
	}
	list, err := client(t, e, ca.Operator).ListReleases(t.Context(), connect.NewRequest(&api.ListReleasesRequest{Stack: "web"}))
	if err != nil || len(list.Msg.Releases) != 1 || list.Msg.Releases[0].By != "me" {
		t.Errorf("%v, %v", list, err)
	}
}

// Each method asks who calls.
func TestOnlyOperators(t *testing.T) {
	e := open(t, t.TempDir())
	defer work(t, e)()
	for _, role := range []ca.Role{ca.Agent, ca.Engine} {
		c, ctx := client(t, e, role), t.Context()
		tries := map[string]func() error{
			"Info": func() error { _, err := c.Info(ctx, connect.NewRequest(&api.InfoRequest{})); return err },
			"Plan": func() error { _, err := c.Plan(ctx, connect.NewRequest(&api.PlanRequest{})); return err },
			"Apply": func() error {
				_, err := c.Apply(ctx, connect.NewRequest(&api.ApplyRequest{Bundle: &api.Bundle{Hash: "x"}}))
				return err
			},
			"ListStacks": func() error { _, err := c.ListStacks(ctx, connect.NewRequest(&api.ListStacksRequest{})); return err },
			"ListReleases": func() error {
				_, err := c.ListReleases(ctx, connect.NewRequest(&api.ListReleasesRequest{}))
				return err
			},
			"ListTasks": func() error { _, err := c.ListTasks(ctx, connect.NewRequest(&api.ListTasksRequest{})); return err },
			"ListServices": func() error {
				_, err := c.ListServices(ctx, connect.NewRequest(&api.ListServicesRequest{}))
				return err
			},
			"ListNodes": func() error { _, err := c.ListNodes(ctx, connect.NewRequest(&api.ListNodesRequest{})); return err },
			"InspectService": func() error {
				_, err := c.InspectService(ctx, connect.NewRequest(&api.InspectServiceRequest{}))
				return err
			},
			"SetStack": func() error { _, err := c.SetStack(ctx, connect.NewRequest(&api.SetStackRequest{})); return err },
			"RollbackStack": func() error {
				_, err := c.RollbackStack(ctx, connect.NewRequest(&api.RollbackStackRequest{}))
				return err
			},
			"ScaleService": func() error {
				_, err := c.ScaleService(ctx, connect.NewRequest(&api.ScaleServiceRequest{}))
				return err
			},
			"RestartService": func() error {
				_, err := c.RestartService(ctx, connect.NewRequest(&api.RestartServiceRequest{}))
				return err
			},
			"SignalRollout": func() error {
				_, err := c.SignalRollout(ctx, connect.NewRequest(&api.SignalRolloutRequest{}))
				return err
			},
			"PutSecret": func() error { _, err := c.PutSecret(ctx, connect.NewRequest(&api.PutSecretRequest{})); return err },
			"ListSecrets": func() error {
				_, err := c.ListSecrets(ctx, connect.NewRequest(&api.ListSecretsRequest{}))
				return err
			},
			"RemoveSecret": func() error {
				_, err := c.RemoveSecret(ctx, connect.NewRequest(&api.RemoveSecretRequest{}))
				return err
			},
			"WatchStack": func() error {
				s, err := c.WatchStack(ctx, connect.NewRequest(&api.WatchStackRequest{}))
				return first(s, err)
			},
			"Logs":   func() error { s, err := c.Logs(ctx, connect.NewRequest(&api.LogsRequest{})); return first(s, err) },
			"Events": func() error { s, err := c.Events(ctx, connect.NewRequest(&api.EventsRequest{})); return first(s, err) },
		}
		for name, try := range tries {
			if err := try(); connect.CodeOf(err) != connect.CodePermissionDenied {
				t.Errorf("%s by an %s: %v", name, role, err)
			}
		}
	}
}

func first[T any](s *connect.ServerStreamForClient[T], err error) error {
	if err != nil {
		return err
	}
	defer s.Close()
	s.Receive()
	return s.Err()
}

// What a client is told decides what it does: wrong playbooks, stale plans
// and missing things have codes of their own.
func TestRefusals(t *testing.T) {
	e := open(t, t.TempDir())
	defer work(t, e)()
	c, ctx := client(t, e, ca.Operator), t.Context()
	apply := func(r *api.ApplyRequest) error { _, err := c.Apply(ctx, connect.NewRequest(r)); return err }
	check := func(what string, err error, code connect.Code, words string) {
		t.Helper()
		if connect.CodeOf(err) != code || !strings.Contains(fmt.Sprint(err), words) {
			t.Errorf("%s: %v", what, err)
		}
	}
	check("a bad playbook", apply(&api.ApplyRequest{Bundle: &api.Bundle{Hash: "bad"}}), connect.CodeInvalidArgument, "web.star:1:1: no such builtin")
	check("no bundle", apply(&api.ApplyRequest{}), connect.CodeInvalidArgument, "there is no bundle")
	check("a name", apply(&api.ApplyRequest{Bundle: &api.Bundle{Hash: "Not A Name"}}), connect.CodeInvalidArgument, "Not A Name")
	plan, err := c.Plan(ctx, connect.NewRequest(&api.PlanRequest{Bundle: &api.Bundle{Hash: "web"}}))
	if err != nil || plan.Msg.Plan.BaseRelease != 0 || len(plan.Msg.Plan.Changes) == 0 {
		t.Fatal(plan, err)
	}
	if err := apply(&api.ApplyRequest{Bundle: &api.Bundle{Hash: "web"}, SpecHash: plan.Msg.Plan.SpecHash}); err != nil {
		t.Error(err)
	}
	check("a stale plan", apply(&api.ApplyRequest{Bundle: &api.Bundle{Hash: "web"}, SpecHash: plan.Msg.Plan.SpecHash}), connect.CodeAborted, "plan again")
	_, err = c.RollbackStack(ctx, connect.NewRequest(&api.RollbackStackRequest{Stack: "web"}))
	check("nothing to roll back to", err, connect.CodeFailedPrecondition, "has only one release")
	_, err = c.ScaleService(ctx, connect.NewRequest(&api.ScaleServiceRequest{Service: "web/app", Replicas: -1}))
	check("fewer than none", err, connect.CodeInvalidArgument, "less than none")
	_, err = c.ScaleService(ctx, connect.NewRequest(&api.ScaleServiceRequest{Service: "web/nope"}))
	check("an unknown service", err, connect.CodeNotFound, `there is no service "web/nope"`)
	_, err = c.PutSecret(ctx, connect.NewRequest(&api.PutSecretRequest{Name: "big", Value: make([]byte, 600<<10)}))
	check("a big secret", err, connect.CodeInvalidArgument, "at most 512000 are allowed")
}

// A data folder has one engine at a time.
func TestDataFolderIsTaken(t *testing.T) {
	dir := t.TempDir()
	e := open(t, dir)
	defer e.Close()
	_, err := engine.Open(engine.Config{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	var used *engine.InUseError
	if !errors.As(err, &used) || used.PID != fmt.Sprint(os.Getpid()) {
		t.Errorf("got %v", err)
	}
	if pid, yes := engine.InUse(dir); !yes || pid != fmt.Sprint(os.Getpid()) {
		t.Error(pid, yes)
	}
}

// An engine that can't open what it needs says what, and lets the folder go.
func TestDamagedFolder(t *testing.T) {
	for name, words := range map[string]string{
		"raft.db": "is damaged", "data.key": "it has 7 bytes, not 32", "ca.crt": "the cluster's CA in",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := open(t, dir).Close(); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, name), []byte("rubbish"), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := engine.Open(engine.Config{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
			if err == nil || !strings.Contains(err.Error(), words) {
				t.Errorf("got %v", err)
			}
			if _, used := engine.InUse(dir); used {
				t.Error("the folder is still taken")
			}
		})
	}
}

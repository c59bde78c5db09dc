package engine_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/reflect/protoreflect"

	"orch/engine"
	"orch/engine/api"
	"orch/engine/api/apiconnect"
	"orch/engine/ca"
	"orch/engine/folder"
)

// host is a host with an engine, in this process.
type host struct {
	*testing.T
	dir    string
	folder *folder.Folder
	wallet *ca.Wallet
	*engine.Engine
	local apiconnect.ClusterServiceClient
	done  func()
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

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// found begins a cluster in dir, or goes on with the one that is there.
func found(t *testing.T, dir string) *host {
	t.Helper()
	f, err := folder.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := engine.Found(f, "test", "n1", ""); err != nil {
		t.Fatal(err)
	}
	return run(t, f)
}

// run runs the engine of a folder until stop.
func run(t *testing.T, f *folder.Folder) *host {
	t.Helper()
	h := &host{T: t, dir: f.Dir, folder: f}
	var err error
	if h.wallet, err = ca.NewWallet(f.Credentials()); err != nil {
		t.Fatal(err)
	}
	learn := func(m *api.Membership) {
		if err := errors.Join(f.SetMembership(m), h.wallet.Set(f.Credentials())); err != nil {
			t.Error(err)
		}
	}
	h.Engine, err = engine.Open(t.Context(), engine.Config{Folder: f, Wallet: h.wallet, Evaluator: evaluator{}, Logger: quiet(), Membership: learn})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.Engine.Run(ctx) }()
	server := httptest.NewServer(h.Engine.Local("root@test"))
	h.local = apiconnect.NewClusterServiceClient(server.Client(), server.URL)
	h.done = func() {
		h.done = func() {}
		server.CloseClientConnections()
		server.Close()
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
		if err := h.Engine.Close(); err != nil {
			t.Error(err)
		}
		f.Close()
	}
	t.Cleanup(func() { h.done() })
	select {
	case <-h.Ready():
	case <-time.After(20 * time.Second):
		t.Fatal("the engine does not get ready")
	}
	return h
}

// stop ends the engine, as a signal does; run can begin it again.
func (h *host) stop() { h.done() }

// again begins it again.
func (h *host) again() *host {
	h.Helper()
	h.stop()
	f, err := folder.Open(h.dir)
	if err != nil {
		h.Fatal(err)
	}
	return run(h.T, f)
}

func request(t *testing.T) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ca.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := ca.Request(key)
	if err != nil {
		t.Fatal(err)
	}
	return key, csr
}

// operator makes one and a client of its own.
func (h *host) operator(name, role string) (apiconnect.ClusterServiceClient, *ca.Wallet) {
	h.Helper()
	key, csr := request(h.T)
	r, err := h.local.AddOperator(h.Context(), connect.NewRequest(&api.AddOperatorRequest{Name: name, Role: role, Csr: csr}))
	if err != nil {
		h.Fatal(err)
	}
	w, err := ca.NewWallet(ca.Credentials{Key: key, Certificate: r.Msg.Certificate, Roots: r.Msg.Roots})
	if err != nil {
		h.Fatal(err)
	}
	return apiconnect.NewClusterServiceClient(h.http(w), "https://"+h.Address(), connect.WithGRPC()), w
}

func (h *host) http(w *ca.Wallet) *http.Client {
	tr := &http.Transport{TLSClientConfig: w.Client(ca.ProtoHTTP), ForceAttemptHTTP2: true}
	h.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// agent admits a node that is none in truth.
func (h *host) agent(name string) *ca.Wallet {
	h.Helper()
	key, csr := request(h.T)
	r, err := h.local.Admit(h.Context(), connect.NewRequest(&api.AdmitRequest{Csr: csr, NodeId: name + "-id", Name: name, Role: "agent"}))
	if err != nil {
		h.Fatal(err)
	}
	w, err := ca.NewWallet(ca.Credentials{Key: key, Certificate: r.Msg.Certificate, Roots: r.Msg.Roots})
	if err != nil {
		h.Fatal(err)
	}
	return w
}

// A cluster is the same after a restart: its id, its node, its releases.
func TestRestart(t *testing.T) {
	h := found(t, t.TempDir())
	ann, _ := h.operator("ann", "deploy")
	before := h.folder.Membership()
	r, err := ann.Apply(t.Context(), connect.NewRequest(&api.ApplyRequest{Bundle: &api.Bundle{Hash: "web"}}))
	if err != nil || r.Msg.Release != 1 || !r.Msg.Changed || len(r.Msg.Warnings) != 1 {
		t.Fatal(r, err)
	}
	h = h.again()
	after := h.folder.Membership()
	if after.ClusterId != before.ClusterId || after.NodeId != before.NodeId || len(after.NodeId) != 16 || after.ClusterId == "" {
		t.Errorf("%v was %v", after, before)
	}
	list, err := h.local.ListReleases(t.Context(), connect.NewRequest(&api.ListReleasesRequest{Stack: "web"}))
	if err != nil || len(list.Msg.Releases) != 1 || list.Msg.Releases[0].By != "ann" {
		t.Errorf("%v, %v", list, err)
	}
}

// methods are all of the engine's, by their procedures.
func methods() []string {
	var all []string
	for _, file := range []protoreflect.FileDescriptor{api.File_engine_api_cluster_proto, api.File_engine_api_agent_proto, api.File_engine_api_node_proto} {
		for i := range file.Services().Len() {
			s := file.Services().Get(i)
			if s.Name() == "HostService" {
				continue // a daemon's own, on its socket
			}
			for j := range s.Methods().Len() {
				all = append(all, fmt.Sprintf("/%s/%s", s.FullName(), s.Methods().Get(j).Name()))
			}
		}
	}
	return all
}

// code is what an engine answers to an empty call.
func (h *host) code(client *http.Client, procedure string) string {
	h.Helper()
	r, err := client.Post("https://"+h.Address()+procedure, "application/json", strings.NewReader("{}"))
	if err != nil {
		h.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		h.Fatal(err)
	}
	var said struct{ Code string }
	_ = json.Unmarshal(body, &said) // what isn't an error is none
	return said.Code
}

// Who may call what, over the wire: nobody but operators the cluster's
// methods, each role no more than its own; an agent's certificate, even a
// stolen one, only what agents need.
func TestWhoMayCallWhat(t *testing.T) {
	h := found(t, t.TempDir())
	_, viewer := h.operator("vera", "view")
	_, deployer := h.operator("dan", "deploy")
	_, admin := h.operator("ann", "admin")
	agent := h.agent("worker")
	nobody, err := ca.NewWallet(ca.Credentials{Roots: agent.Credentials().Roots})
	if err != nil {
		t.Fatal(err)
	}
	in := func(list string) func(string) bool {
		return func(name string) bool { return strings.Contains(" "+list+" ", " "+name+" ") }
	}
	views := in("Info Plan WatchStack WatchRollout ListStacks ListReleases ListTasks ListServices ListNodes ListNetworks CheckNetworks InspectService InspectNode Logs Events ListSecrets RenewOperator")
	deploys := in("Apply SetStack RollbackStack ScaleService RestartService SignalRollout PutSecret RemoveSecret")
	agents := in("Session PublishLogs Renew Leave")
	join := in("Join")
	engines := in("Announce Keys")
	for who, tc := range map[string]struct {
		wallet *ca.Wallet
		may    func(string) bool
	}{
		"nobody":   {nobody, join},
		"agent":    {agent, func(m string) bool { return join(m) || agents(m) }},
		"viewer":   {viewer, func(m string) bool { return join(m) || views(m) }},
		"deployer": {deployer, func(m string) bool { return join(m) || views(m) || deploys(m) }},
		"admin":    {admin, func(m string) bool { return !agents(m) && !engines(m) }},
		"engine":   {h.wallet, func(m string) bool { return join(m) || agents(m) || engines(m) }},
	} {
		client := h.http(tc.wallet)
		for _, procedure := range methods() {
			name := procedure[strings.LastIndex(procedure, "/")+1:]
			if may := tc.may(name); may && (name == "Leave" || name == "RotateCA" || name == "Autolock") {
				continue // it would
			}
			code := h.code(client, procedure)
			refused := code == "permission_denied" || code == "unauthenticated"
			if name == "Join" {
				refused = false // without a token it is no request
			}
			if refused == tc.may(name) || code == "unimplemented" {
				t.Errorf("%s by %s: %q", procedure, who, code)
			}
		}
	}
}

// Who is removed, or loses its role, has lost it at once.
func TestRemovalBitesAtOnce(t *testing.T) {
	h := found(t, t.TempDir())
	client, w := h.operator("ann", "admin")
	if _, err := client.Info(t.Context(), connect.NewRequest(&api.InfoRequest{})); err != nil {
		t.Fatal(err)
	}
	if _, err := h.local.DeleteOperator(t.Context(), connect.NewRequest(&api.DeleteOperatorRequest{Name: "ann"})); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Info(t.Context(), connect.NewRequest(&api.InfoRequest{})); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("a removed operator: %v", err)
	}
	// Somebody else of the same name is somebody else.
	h.operator("ann", "view")
	if code := h.code(h.http(w), apiconnect.ClusterServiceInfoProcedure); code != "permission_denied" {
		t.Errorf("the key of another: %q", code)
	}
	worker := h.agent("worker")
	if _, err := h.local.DeleteNode(t.Context(), connect.NewRequest(&api.DeleteNodeRequest{Node: "worker"})); err != nil {
		t.Fatal(err)
	}
	nodes := apiconnect.NewNodeServiceClient(h.http(worker), "https://"+h.Address(), connect.WithGRPC())
	_, err := nodes.Renew(t.Context(), connect.NewRequest(&api.RenewRequest{}))
	var refused *connect.Error
	if !errors.As(err, &refused) || refused.Meta().Get(api.ReasonHeader) != api.ReasonRemoved {
		t.Errorf("a removed node renews: %v", err)
	}
}

// What a client is told decides what it does: wrong playbooks, stale plans
// and missing things have codes of their own.
func TestRefusals(t *testing.T) {
	h := found(t, t.TempDir())
	c, ctx := h.local, t.Context()
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
	check("nothing to roll back to", err, connect.CodeFailedPrecondition, "no earlier release")
	_, err = c.ScaleService(ctx, connect.NewRequest(&api.ScaleServiceRequest{Service: "web/app", Replicas: -1}))
	check("fewer than none", err, connect.CodeInvalidArgument, "less than none")
	_, err = c.ScaleService(ctx, connect.NewRequest(&api.ScaleServiceRequest{Service: "web/nope"}))
	check("an unknown service", err, connect.CodeNotFound, `there is no service "web/nope"`)
	_, err = c.PutSecret(ctx, connect.NewRequest(&api.PutSecretRequest{Name: "big", Value: make([]byte, 600<<10)}))
	check("a big secret", err, connect.CodeInvalidArgument, "at most 512000 are allowed")
	_, err = c.UpdateNode(ctx, connect.NewRequest(&api.UpdateNodeRequest{Node: "n1", Role: "agent"}))
	check("the last engine", err, connect.CodeFailedPrecondition, "it is the only engine")
	_, err = c.UpdateNode(ctx, connect.NewRequest(&api.UpdateNodeRequest{Node: "nope", Availability: "drain"}))
	check("an unknown node", err, connect.CodeNotFound, `there is no node "nope"`)
	_, err = c.UpdateNode(ctx, connect.NewRequest(&api.UpdateNodeRequest{Node: "n1", Availability: "asleep"}))
	check("an unknown availability", err, connect.CodeInvalidArgument, "active, paused or drained")
}

// A secret's value, the CA's key and the data key are in no file as they are.
func TestNothingSecretOnDisk(t *testing.T) {
	dir := t.TempDir()
	h := found(t, dir)
	keys, err := h.folder.Keys()
	if err != nil {
		t.Fatal(err)
	}
	value := []byte("correct horse battery staple")
	if _, err := h.local.PutSecret(t.Context(), connect.NewRequest(&api.PutSecretRequest{Name: "pw", Value: value})); err != nil {
		t.Fatal(err)
	}
	marker := "a-name-that-stands-in-the-log"
	if _, err := h.local.UpdateNode(t.Context(), connect.NewRequest(&api.UpdateNodeRequest{Node: "n1", Labels: map[string]string{"x": marker}})); err != nil {
		t.Fatal(err)
	}
	h.stop()
	err = filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if bytes.Contains(b, value) || bytes.Contains(b, []byte(marker)) || bytes.Contains(b, keys.Data) {
			t.Errorf("%s tells", path)
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %s", path, info.Mode())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// An engine that can't open what it needs says what, and lets the folder go.
func TestDamagedFolder(t *testing.T) {
	for name, words := range map[string]string{"raft.db": "is damaged", "keys.json": "is damaged", "membership.json": "is damaged"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			found(t, dir).stop()
			if err := os.WriteFile(filepath.Join(dir, name), []byte("rubbish"), 0o600); err != nil {
				t.Fatal(err)
			}
			f, err := folder.Open(dir)
			if err == nil {
				var w *ca.Wallet
				if w, err = ca.NewWallet(f.Credentials()); err != nil {
					t.Fatal(err)
				}
				_, err = engine.Open(t.Context(), engine.Config{Folder: f, Wallet: w, Logger: quiet()})
				f.Close()
			}
			if err == nil || !strings.Contains(err.Error(), words) {
				t.Errorf("got %v", err)
			}
			if _, used := folder.InUse(dir); used {
				t.Error("the folder is still taken")
			}
		})
	}
}

// A node whose certificate ended, or is of a CA that was replaced, can do
// nothing but renew it: it is known by its key. Another key is not enough.
func TestRenewByKey(t *testing.T) {
	h := found(t, t.TempDir())
	worker := h.agent("worker")
	creds := worker.Credentials()
	old, err := ca.New() // whose certificates count no more than ended ones
	if err != nil {
		t.Fatal(err)
	}
	stale := func(key *ecdsa.PrivateKey) (*ca.Wallet, apiconnect.NodeServiceClient) {
		t.Helper()
		cert, err := old.Sign(ca.Subject{Role: ca.Agent, ID: "worker-id"}, key.Public())
		if err != nil {
			t.Fatal(err)
		}
		w, err := ca.NewWallet(ca.Credentials{Key: key, Certificate: cert, Roots: creds.Roots})
		if err != nil {
			t.Fatal(err)
		}
		return w, apiconnect.NewNodeServiceClient(h.http(w), "https://"+h.Address(), connect.WithGRPC())
	}
	csr, err := ca.Request(creds.Key)
	if err != nil {
		t.Fatal(err)
	}
	w, client := stale(creds.Key)
	_, err = client.Leave(t.Context(), connect.NewRequest(&api.LeaveRequest{}))
	var refused *connect.Error
	if !errors.As(err, &refused) || refused.Code() != connect.CodeUnauthenticated || refused.Meta().Get(api.ReasonHeader) != api.ReasonRenew {
		t.Errorf("got %v", err)
	}
	for _, procedure := range methods() {
		name := procedure[strings.LastIndex(procedure, "/")+1:]
		if code := h.code(h.http(w), procedure); name != "Renew" && name != "Join" && code != "unauthenticated" && code != "permission_denied" {
			t.Errorf("%s with an ended certificate: %q", procedure, code)
		}
	}
	r, err := client.Renew(t.Context(), connect.NewRequest(&api.RenewRequest{Csr: csr}))
	if err != nil || ca.Issuer(r.Msg.Certificate, creds.Roots) == "" {
		t.Fatalf("%v, %v", r, err)
	}
	key, otherCSR := request(t)
	if _, err := client.Renew(t.Context(), connect.NewRequest(&api.RenewRequest{Csr: otherCSR})); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("for another key: %v", err)
	}
	_, thief := stale(key)
	if _, err := thief.Renew(t.Context(), connect.NewRequest(&api.RenewRequest{Csr: otherCSR})); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("by another key: %v", err)
	}
}

package docker_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"

	"orch/agent/task"
	"orch/engine/api"
)

// A network that somebody removed is made again; one that a container is
// being made for isn't pruned under it.
func TestNetworksComeBack(t *testing.T) {
	c, cluster, ref, secrets := daemon(t)
	rt := open(t, cluster, secrets)
	ctx := t.Context()
	made := func(n int) *task.Task {
		return &task.Task{
			ID: fmt.Sprintf("net/app.%d#1", n), Cluster: cluster, Stack: "net", Service: "app", Slot: fmt.Sprintf("net/app.%d", n),
			Spec:     &api.TaskSpec{Image: ref, Entrypoint: []string{"/prog"}, Command: []string{"wait"}, Networks: []string{"default"}, Pull: "never"},
			Networks: []*api.TaskNetwork{{Spec: &api.NetworkSpec{Name: "default"}}},
		}
	}
	begin := func(n int) {
		x := made(n)
		if o, err := rt.Start(ctx, x); err != nil || o.Phase != task.Running {
			t.Errorf("task %d: %v, %v", n, o.Phase, err)
		}
		t.Cleanup(func() { _ = rt.Remove(context.Background(), x.ID) })
	}
	begin(1)
	if err := rt.Remove(ctx, made(1).ID); err != nil {
		t.Fatal(err)
	}
	nets, err := c.NetworkList(ctx, network.ListOptions{Filters: filters.NewArgs(filters.Arg("label", "orch.cluster="+cluster))})
	if err != nil || len(nets) != 1 {
		t.Fatal(nets, err)
	}
	if err := c.NetworkRemove(ctx, nets[0].ID); err != nil {
		t.Fatal(err)
	}
	begin(2)
	if err := rt.Remove(ctx, made(2).ID); err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	for n := 3; n < 9; n++ {
		work.Go(func() { begin(n) })
		if err := rt.Prune(ctx, nil); err != nil {
			t.Error(err)
		}
	}
	work.Wait()
	for n := 3; n < 9; n++ {
		if err := rt.Remove(ctx, made(n).ID); err != nil {
			t.Error(err)
		}
	}
	if err := rt.Prune(ctx, nil); err != nil {
		t.Error(err)
	}
}

// A stack that comes back under its name may get another subnet: what is
// remembered of the network before it doesn't count.
func TestANetworkChangesItsSubnet(t *testing.T) {
	_, cluster, ref, secrets := daemon(t)
	rt := open(t, cluster, secrets)
	for n, subnet := range []string{"10.213.16.0/24", "10.213.17.0/24"} {
		x := &task.Task{
			ID: fmt.Sprintf("net/app.1#%d", n), Cluster: cluster, Stack: "net", Service: "app", Slot: "net/app.1",
			Spec:     &api.TaskSpec{Image: ref, Entrypoint: []string{"/prog"}, Command: []string{"wait"}, Networks: []string{"default"}, Pull: "never"},
			Networks: []*api.TaskNetwork{{Spec: &api.NetworkSpec{Name: "default"}, Subnet: subnet, Address: subnet[:len(subnet)-4] + "9"}},
		}
		if o, err := rt.Start(t.Context(), x); err != nil || o.Phase != task.Running {
			t.Errorf("in %s: %v, %v", subnet, o.Phase, err)
		}
		if err := rt.Remove(context.Background(), x.ID); err != nil {
			t.Fatal(err)
		}
	}
	if err := rt.Prune(t.Context(), nil); err != nil {
		t.Error(err)
	}
}

package docker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/volume"

	"orch/agent/task"
	"orch/agent/taskfiles"
	"orch/engine/api"
)

func (r *Runtime) ours(labels ...string) filters.Args {
	f := filters.NewArgs(filters.Arg("label", labelCluster+"="+r.cfg.Cluster))
	for _, l := range labels {
		f.Add("label", l)
	}
	return f
}

// taken is the name for something whose plain name another cluster has.
func (r *Runtime) taken(name string) string {
	id := taskfiles.FolderName(r.cfg.Cluster)
	return name + "_" + id[len(id)-6:]
}

// attached is a network of a task by the name that Docker has for it.
type attached struct {
	*api.TaskNetwork
	name string
}

// made is a network that this runtime knows to be there.
type made struct{ name, subnet string }

// ensureNetworks makes those networks of t that are missing.
func (r *Runtime) ensureNetworks(ctx context.Context, t *task.Task) ([]attached, error) {
	all := make([]attached, len(t.Networks))
	for i, n := range t.Networks {
		all[i] = attached{n, n.Spec.Name}
		if n.Spec.External {
			continue
		}
		var err error
		if all[i].name, err = r.ensureNetwork(ctx, t.Stack, n); err != nil {
			return nil, fmt.Errorf("cannot make network %q: %w", n.Spec.Name, err)
		}
	}
	return all, nil
}

func (r *Runtime) ensureNetwork(ctx context.Context, stack string, n *api.TaskNetwork) (string, error) {
	key := stack + "/" + n.Spec.Name
	unlock, err := r.busy.lock(ctx, "network "+key)
	if err != nil {
		return "", err
	}
	defer unlock()
	r.mu.Lock()
	had, known := r.networks[key]
	r.mu.Unlock()
	if known && had.subnet == n.Subnet {
		return had.name, nil
	}
	name := ""
	found, err := r.docker.NetworkList(ctx, network.ListOptions{Filters: r.ours(labelNetwork + "=" + key)})
	if err != nil {
		return "", r.plain(err)
	}
	for _, old := range found {
		if n.Subnet == "" || slices.ContainsFunc(old.IPAM.Config, func(c network.IPAMConfig) bool { return c.Subnet == n.Subnet }) {
			name = old.Name
		} else if err := r.docker.NetworkRemove(ctx, old.ID); err != nil && !absent(err) { // of a stack of that name before this one
			return "", r.plain(err)
		}
	}
	if name == "" {
		if name, err = r.createNetwork(ctx, stack, n); err != nil {
			return "", err
		}
	}
	if r.cfg.Plane != nil && n.Vni > 0 {
		r.cfg.Plane.Attach(n.Vni)
	}
	r.mu.Lock()
	r.networks[key] = made{name, n.Subnet}
	r.mu.Unlock()
	return name, nil
}

func (r *Runtime) createNetwork(ctx context.Context, stack string, n *api.TaskNetwork) (string, error) {
	labels := map[string]string{}
	for k, v := range n.Spec.Labels {
		labels[k] = v
	}
	labels[labelCluster], labels[labelStack], labels[labelNetwork] = r.cfg.Cluster, stack, stack+"/"+n.Spec.Name
	opts := network.CreateOptions{Driver: "bridge", Internal: n.Spec.Internal, Labels: labels, Options: map[string]string{}}
	if n.Subnet != "" {
		opts.IPAM = &network.IPAM{Config: []network.IPAMConfig{{Subnet: n.Subnet}}}
	}
	if r.cfg.Plane != nil && n.Vni > 0 {
		opts.Options["com.docker.network.bridge.name"] = r.cfg.Plane.Bridge(n.Vni)
		opts.Options["com.docker.network.driver.mtu"] = strconv.Itoa(int(n.Mtu))
	}
	name := "orch_" + stack + "_" + n.Spec.Name
	_, err := r.docker.NetworkCreate(ctx, name, opts)
	if cerrdefs.IsConflict(err) {
		name = r.taken(name)
		_, err = r.docker.NetworkCreate(ctx, name, opts)
	}
	if err != nil {
		return "", networkError(r.plain(err))
	}
	return name, nil
}

// networkError adds what an operator can do about Docker's terse refusals.
func networkError(err error) error {
	switch text := err.Error(); {
	case strings.Contains(text, "non-overlapping IPv4 address pool"), strings.Contains(text, "fully subnetted"):
		//lint:ignore ST1005 Docker is a name
		return fmt.Errorf("Docker has no free subnet left: remove unused networks (docker network prune), give the network a subnet, or widen default-address-pools in Docker's daemon.json: %w", err)
	case strings.Contains(text, "Pool overlaps"):
		return fmt.Errorf("its subnet overlaps that of another network on this node: %w", err)
	}
	return err
}

func (r *Runtime) forgetNetworks() {
	r.mu.Lock()
	clear(r.networks)
	r.mu.Unlock()
}

// ensureVolumes makes those volumes of t that are missing and returns the
// names that Docker knows them by, by their names in the stack.
func (r *Runtime) ensureVolumes(ctx context.Context, t *task.Task) (map[string]string, error) {
	names := map[string]string{}
	for _, v := range t.Volumes {
		if v.External {
			names[v.Name] = v.Name
			continue
		}
		name, err := r.ensureVolume(ctx, t.Stack, v)
		if err != nil {
			return nil, fmt.Errorf("cannot make volume %q: %w", v.Name, r.plain(err))
		}
		names[v.Name] = name
	}
	return names, nil
}

func (r *Runtime) ensureVolume(ctx context.Context, stack string, v *api.VolumeSpec) (string, error) {
	key := stack + "/" + v.Name
	unlock, err := r.busy.lock(ctx, "volume "+key)
	if err != nil {
		return "", err
	}
	defer unlock()
	found, err := r.docker.VolumeList(ctx, volume.ListOptions{Filters: r.ours(labelVolume + "=" + key)})
	if err != nil {
		return "", err
	}
	if len(found.Volumes) > 0 {
		return found.Volumes[0].Name, nil
	}
	opts := volume.CreateOptions{
		Name: "orch_" + stack + "_" + v.Name, Driver: v.Driver, DriverOpts: v.Options,
		Labels: map[string]string{
			labelCluster: r.cfg.Cluster, labelStack: stack, labelVolume: key, labelOnRemove: v.OnRemove,
		},
	}
	// Docker answers with the volume of that name that exists, whoever made it.
	made, err := r.docker.VolumeCreate(ctx, opts)
	if err == nil && made.Labels[labelCluster] != r.cfg.Cluster {
		opts.Name = r.taken(opts.Name)
		made, err = r.docker.VolumeCreate(ctx, opts)
	}
	return made.Name, err
}

// Prune removes networks, and volumes with on_remove "delete", of the stacks
// that keep doesn't name. What is still in use stays, for a later call.
func (r *Runtime) Prune(ctx context.Context, keep map[string]bool) error {
	networks, err := r.docker.NetworkList(ctx, network.ListOptions{Filters: r.ours(labelNetwork)})
	if err != nil {
		return fmt.Errorf("cannot list networks: %w", r.plain(err))
	}
	var all []error
	for _, n := range networks {
		if keep[n.Labels[labelStack]] {
			continue
		}
		if err := r.removeNetwork(ctx, n); err != nil {
			all = append(all, fmt.Errorf("cannot remove network %q: %w", n.Name, r.plain(err)))
		}
	}
	volumes, err := r.docker.VolumeList(ctx, volume.ListOptions{Filters: r.ours(labelOnRemove + "=delete")})
	if err != nil {
		return errors.Join(append(all, fmt.Errorf("cannot list volumes: %w", r.plain(err)))...)
	}
	for _, v := range volumes.Volumes {
		if keep[v.Labels[labelStack]] {
			continue
		}
		if err := r.docker.VolumeRemove(ctx, v.Name, false); err != nil && !absent(err) && !inUse(err) {
			all = append(all, fmt.Errorf("cannot remove volume %q: %w", v.Name, r.plain(err)))
		}
	}
	return errors.Join(all...)
}

// removeNetwork leaves a network alone that a container is just being made
// for: Docker itself only knows of those that have been started.
func (r *Runtime) removeNetwork(ctx context.Context, n network.Summary) error {
	key := n.Labels[labelNetwork]
	unlock, err := r.busy.lock(ctx, "network "+key)
	if err != nil {
		return err
	}
	defer unlock()
	r.mu.Lock()
	wanted := r.using[n.Labels[labelStack]] > 0
	if !wanted {
		delete(r.networks, key)
	}
	r.mu.Unlock()
	if wanted {
		return nil
	}
	if err := r.docker.NetworkRemove(ctx, n.ID); err != nil && !absent(err) && !inUse(err) {
		return err
	}
	return nil
}

// use says that a container of the stack is being made, until the function
// that it returns is called.
func (r *Runtime) use(stack string) (done func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.using[stack]++
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.using[stack]--; r.using[stack] == 0 {
			delete(r.using, stack)
		}
	}
}

func inUse(err error) bool {
	return cerrdefs.IsConflict(err) || cerrdefs.IsPermissionDenied(err) && strings.Contains(err.Error(), "active endpoints")
}

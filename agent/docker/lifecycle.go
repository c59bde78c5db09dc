package docker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/go-units"
	"golang.org/x/sync/errgroup"

	"orch/agent/task"
)

// Start creates and starts the task's container: three calls to Docker.
// One that exists is started if it never was, and left alone otherwise.
func (r *Runtime) Start(ctx context.Context, t *task.Task) (task.Observed, error) {
	unlock, err := r.busy.lock(ctx, "task "+t.ID)
	if err != nil {
		return task.Observed{}, err
	}
	defer unlock()
	defer r.use(t.Stack)()
	id, err := r.create(ctx, t)
	if err != nil {
		return task.Observed{}, fmt.Errorf("cannot create task %q: %w", t.ID, r.plain(err))
	}
	if id == containerName(r.cfg.Cluster, t.ID) { // an earlier Start made it
		if o, err := r.Inspect(ctx, t.ID); err != nil || o.Phase != task.Created {
			return o, err // tasks are one-shot: an ended one isn't started again
		}
	}
	err = r.docker.ContainerStart(ctx, id, container.StartOptions{})
	if absent(err) {
		// Somebody removed a network since it was seen.
		r.forgetNetworks()
		if _, err := r.ensureNetworks(ctx, t); err != nil {
			return task.Observed{}, fmt.Errorf("cannot start task %q: %w", t.ID, err)
		}
		err = r.docker.ContainerStart(ctx, id, container.StartOptions{})
	}
	if err != nil {
		return task.Observed{}, fmt.Errorf("cannot start task %q: %w", t.ID, networkError(r.plain(err)))
	}
	return r.Inspect(ctx, t.ID)
}

// create makes sure that there is a container, with all its networks.
func (r *Runtime) create(ctx context.Context, t *task.Task) (string, error) {
	id, err := r.tryCreate(ctx, t)
	if err != nil && absent(err) {
		// What we remember of images or networks is no longer so.
		r.forgetImage(t.Spec.Image)
		r.forgetNetworks()
		id, err = r.tryCreate(ctx, t)
	}
	return id, err
}

func (r *Runtime) tryCreate(ctx context.Context, t *task.Task) (string, error) {
	networks, err := r.ensureNetworks(ctx, t)
	if err != nil {
		return "", err
	}
	volumes := map[string]string{}
	if len(t.Volumes) > 0 {
		if volumes, err = r.ensureVolumes(ctx, t); err != nil {
			return "", err
		}
	}
	full := r.named(t)
	files, err := r.writeFiles(full)
	if err != nil {
		return "", err
	}
	q, err := r.build(full, networks, volumes, files)
	if err != nil {
		return "", err
	}
	made, err := r.docker.ContainerCreate(ctx, q.config, q.host, q.net, nil, q.name)
	id := made.ID
	if cerrdefs.IsConflict(err) && strings.Contains(err.Error(), "already in use") {
		id = q.name // which tells Start that an earlier one made it
	} else if err != nil {
		return "", err
	}
	for _, n := range q.more {
		err := r.docker.NetworkConnect(ctx, n.name, id, r.endpoint(t, n))
		if err != nil && !strings.Contains(err.Error(), "already exists in network") && !strings.Contains(err.Error(), "already attached") {
			return "", err
		}
	}
	return id, r.giveFiles(ctx, t, id)
}

// Inspect sees the task's container.
func (r *Runtime) Inspect(ctx context.Context, id string) (task.Observed, error) {
	info, err := r.docker.ContainerInspect(ctx, containerName(r.cfg.Cluster, id))
	if absent(err) {
		return task.Observed{TaskID: id, Phase: task.Absent}, nil
	}
	if err != nil {
		return task.Observed{}, fmt.Errorf("cannot inspect task %q: %w", id, r.plain(err))
	}
	return observe(info), nil
}

func observe(c container.InspectResponse) task.Observed {
	o := task.Observed{RuntimeID: c.ID, TaskID: c.Config.Labels[labelTask], Version: c.Config.Labels[labelVersion], Error: c.State.Error}
	o.StartedAt, _ = time.Parse(time.RFC3339Nano, c.State.StartedAt)
	o.EndedAt, _ = time.Parse(time.RFC3339Nano, c.State.FinishedAt)
	if o.EndedAt.Before(o.StartedAt) {
		o.EndedAt = o.StartedAt // Docker notes the start of one that ends at once too late
	}
	switch c.State.Status {
	case container.StateCreated:
		o.Phase = task.Created
		if o.Error != "" { // Docker tried to start it, and could not
			o.Phase, o.ExitCode = task.Exited, c.State.ExitCode
		}
	case container.StateRunning, container.StatePaused, container.StateRestarting:
		o.Phase, o.EndedAt = task.Running, time.Time{}
		o.Address = address(c)
		if c.State.Pid > 0 && c.HostConfig.NetworkMode != "host" {
			o.Namespace = fmt.Sprintf("/proc/%d/ns/net", c.State.Pid)
		}
	default:
		o.Phase, o.ExitCode = task.Exited, c.State.ExitCode
	}
	if o.Phase == task.Exited && c.State.OOMKilled {
		o.Error = "killed: out of memory"
		if c.HostConfig.Memory > 0 {
			o.Error += " (limit " + strings.Replace(units.CustomSize("%g %s", float64(c.HostConfig.Memory), 1024, []string{"B", "KiB", "MiB", "GiB", "TiB"}), "  ", " ", 1) + ")"
		}
	}
	return o
}

// address is the container's on its first network, where the node reaches it.
func address(c container.InspectResponse) string {
	if c.NetworkSettings == nil {
		return ""
	}
	if c.HostConfig.NetworkMode == "host" {
		return "127.0.0.1"
	}
	if n := c.NetworkSettings.Networks[string(c.HostConfig.NetworkMode)]; n != nil && n.IPAddress != "" {
		return n.IPAddress
	}
	for _, n := range c.NetworkSettings.Networks {
		if n.IPAddress != "" {
			return n.IPAddress
		}
	}
	return ""
}

// Wait asks again after lost connections and restarts of the daemon, for as
// long as ctx lasts.
func (r *Runtime) Wait(ctx context.Context, id string) (task.Observed, error) {
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		o, err := r.Inspect(ctx, id)
		if err == nil && o.Phase != task.Running {
			return o, nil
		}
		if err == nil {
			done, failed := r.docker.ContainerWait(ctx, o.RuntimeID, container.WaitConditionNotRunning)
			select {
			case <-done:
				pause = 50 * time.Millisecond
				continue
			case err = <-failed:
			}
		}
		if ctx.Err() != nil {
			return task.Observed{}, ctx.Err()
		}
		r.log.Debug("waiting for a task was interrupted", "task", id, "error", err)
		again := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			again.Stop()
			return task.Observed{}, ctx.Err()
		case <-again.C:
		}
	}
}

// Stop has Docker send the stop signal that the container was made with and,
// after the grace (whole seconds, rounded up), SIGKILL.
func (r *Runtime) Stop(ctx context.Context, t *task.Task) error {
	grace := 10
	if d := t.Spec.GetStopGrace(); d != nil {
		grace = seconds(d.AsDuration())
	}
	err := r.docker.ContainerStop(ctx, containerName(r.cfg.Cluster, t.ID), container.StopOptions{Timeout: &grace})
	if err != nil && !absent(err) {
		return fmt.Errorf("cannot stop task %q: %w", t.ID, r.plain(err))
	}
	return nil
}

// Remove takes away the container with its anonymous volumes, and the files.
func (r *Runtime) Remove(ctx context.Context, id string) error {
	name := containerName(r.cfg.Cluster, id)
	err := r.docker.ContainerRemove(ctx, name, container.RemoveOptions{Force: true, RemoveVolumes: true})
	if cerrdefs.IsConflict(err) && strings.Contains(err.Error(), "already in progress") {
		gone, failed := r.docker.ContainerWait(ctx, name, container.WaitConditionRemoved)
		select {
		case <-gone:
			err = nil
		case err = <-failed:
		}
	}
	if err != nil && !absent(err) {
		return fmt.Errorf("cannot remove task %q: %w", id, r.plain(err))
	}
	return r.files.Remove(id)
}

// List sees every container of the cluster.
func (r *Runtime) List(ctx context.Context) ([]task.Observed, error) {
	found, err := r.docker.ContainerList(ctx, container.ListOptions{All: true, Filters: r.ours(labelTask)})
	if err != nil {
		return nil, fmt.Errorf("cannot list tasks: %w", r.plain(err))
	}
	all := make([]task.Observed, len(found))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for i, c := range found {
		group.Go(func() (err error) {
			all[i], err = r.Inspect(ctx, c.Labels[labelTask])
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	var there []task.Observed
	for _, o := range all {
		if o.Phase != task.Absent { // gone since it was listed
			there = append(there, o)
		}
	}
	return there, nil
}

var errNotRunning = errors.New("it is not running")

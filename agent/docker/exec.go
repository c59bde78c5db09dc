package docker

import (
	"context"
	"fmt"
	"io"
	"strings"
	"syscall"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/pkg/stdcopy"

	"orch/agent/task"
)

// Exec runs argv in the task's container, and kills it when ctx ends (which
// Docker doesn't offer) where this process may.
func (r *Runtime) Exec(ctx context.Context, id string, argv []string) (int, string, error) {
	fail := func(err error) (int, string, error) {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return -1, "", fmt.Errorf("cannot run %q in task %q: %w", argv, id, r.plain(err))
	}
	made, err := r.docker.ContainerExecCreate(ctx, containerName(r.cfg.Cluster, id), container.ExecOptions{Cmd: argv, AttachStdout: true, AttachStderr: true})
	if absent(err) {
		err = errNotRunning
	}
	if err != nil {
		return fail(err)
	}
	conn, err := r.docker.ContainerExecAttach(ctx, made.ID, container.ExecAttachOptions{})
	if err != nil {
		return fail(err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, conn.Close)()
	var out task.Tail
	_, err = stdcopy.StdCopy(&out, &out, conn.Reader)
	if ctx.Err() != nil {
		r.killExec(context.WithoutCancel(ctx), made.ID)
		return -1, out.String(), ctx.Err()
	}
	if err != nil && err != io.EOF {
		return fail(err)
	}
	info, err := r.docker.ContainerExecInspect(ctx, made.ID)
	if err != nil {
		return fail(err)
	}
	return info.ExitCode, out.String(), nil
}

func (r *Runtime) killExec(ctx context.Context, exec string) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if !strings.HasPrefix(r.docker.DaemonHost(), "unix://") {
		return // its process ids are another host's
	}
	info, err := r.docker.ContainerExecInspect(ctx, exec)
	if err == nil && info.Running && info.Pid > 1 {
		_ = syscall.Kill(info.Pid, syscall.SIGKILL)
	}
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"orch/cmd/internal/socket"
	"orch/engine/api"
)

func downCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "Stop all tasks on this machine, then the cluster itself",
		Long: `Stop the tasks of every stack, wait until they are gone, and end the cluster
that runs on this machine. Releases, secrets and volumes stay: ` + "`orch run`" + ` goes on
from there. Where the cluster was killed, it is started once more to stop what it
left running.`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			name, err := currentContext()
			if err != nil {
				return err
			}
			if name != "" {
				return fmt.Errorf("`orch down` ends the cluster of this machine, and context %q is another: `orch context use local` first, or `orch stack rm` there", name)
			}
			client, host, err := connectLocal(ctx)
			if errors.Is(err, errNoCluster) {
				return downKilled(cmd)
			}
			if err != nil {
				return err
			}
			nodes, err := client.ListNodes(ctx, connect.NewRequest(&api.ListNodesRequest{}))
			if err != nil {
				return err
			}
			if n := len(nodes.Msg.Nodes); n > 1 {
				return fmt.Errorf("this cluster has %d nodes: `orch stack rm` takes a stack away, `orch cluster leave` this host", n)
			}
			if err := stopStacks(ctx, client); err != nil {
				return err
			}
			return stopDaemon(ctx, int(host.Pid))
		},
	}
}

// downKilled stops what a killed cluster left running.
func downKilled(cmd *cobra.Command) error {
	dir, err := home()
	if err != nil {
		return err
	}
	// A daemon that ended in order took its socket away, see gone.
	if _, err := os.Stat(filepath.Join(dir, socket.Name)); err != nil {
		return errNoCluster
	}
	l, err := startLocal(cmd.Context(), localOptions{alone: true})
	if err != nil {
		return err
	}
	defer l.Close()
	if err := l.stopAll(cmd, l.client); err != nil {
		return err
	}
	return forgetSocket()
}

// stopDaemon ends this machine's daemon.
func stopDaemon(ctx context.Context, pid int) error {
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("cannot end orch's process %d: %w", pid, err)
	}
	return gone(ctx)
}

// gone waits until the cluster's process has ended, and forgets how it was
// reached: nothing is left that a later `orch down` could stop.
func gone(ctx context.Context) error {
	if err := untilFree(ctx); err != nil {
		return err
	}
	return forgetSocket()
}

func forgetSocket() error {
	dir, err := home()
	if err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(dir, socket.Name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("cannot tidy up: %w", err)
	}
	return nil
}

func untilFree(ctx context.Context) error {
	dir, err := home()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if until(ctx, 20*time.Millisecond, func() bool { return free(dir) }) != nil {
		return errors.New("the cluster's process does not end")
	}
	return nil
}

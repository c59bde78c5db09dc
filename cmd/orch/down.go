package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/spf13/cobra"
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
			client, t, err := connectCluster(ctx)
			if errors.Is(err, errNoCluster) {
				return downKilled(cmd)
			}
			if err != nil {
				return err
			}
			if err := stopStacks(ctx, client); err != nil {
				return err
			}
			if err := syscall.Kill(t.PID, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("cannot end the cluster's process %d: %w", t.PID, err)
			}
			return gone(ctx)
		},
	}
}

// downKilled stops what a killed cluster left running.
func downKilled(cmd *cobra.Command) error {
	dir, err := home()
	if err != nil {
		return err
	}
	if _, err := os.Stat(targetPath(dir)); err != nil {
		return errNoCluster
	}
	l, err := startLocal(cmd.Context(), "", nil)
	if err != nil {
		return err
	}
	defer l.Close()
	if err := l.stopAll(cmd, l.client); err != nil {
		return err
	}
	return forgetTarget()
}

// gone waits until the cluster's process has ended, and forgets how it was
// reached: nothing is left that a later `orch down` could stop.
func gone(ctx context.Context) error {
	if err := untilFree(ctx); err != nil {
		return err
	}
	return forgetTarget()
}

func forgetTarget() error {
	dir, err := home()
	if err != nil {
		return err
	}
	if err := os.Remove(targetPath(dir)); err != nil && !errors.Is(err, os.ErrNotExist) {
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
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !free(dir) {
		select {
		case <-ctx.Done():
			return errors.New("the cluster's process does not end")
		case <-tick.C:
		}
	}
	return nil
}

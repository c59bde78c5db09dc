package main

import (
	"context"
	"os"
	"time"

	"github.com/spf13/cobra"
)

func engineCommand() *cobra.Command {
	var listen string
	cmd := &cobra.Command{
		Use:   "engine",
		Short: "Run an engine and its agent in the foreground, without deploying",
		Long: `Run an engine and an agent on this machine until a signal; where this machine
is in no cluster yet, it becomes a cluster of one. Tasks go on running when it
ends, and are adopted, not restarted, when it begins again: so it can be
supervised and upgraded like any other daemon. Its log goes to standard error.`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := startLocal(cmd.Context(), localOptions{listen: listen, log: os.Stderr})
			if err != nil {
				return err
			}
			defer l.Close()
			select {
			case <-cmd.Context().Done():
				l.tidy(context.WithoutCancel(cmd.Context()))
				return nil
			case err := <-l.failed:
				return l.Left(err)
			}
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "", "`address` of the TLS port (default 127.0.0.1 and a free port)")
	return cmd
}

func agentCommand() *cobra.Command {
	var dir string
	var bare bool
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Run what this host is in its cluster, in the foreground",
		Long: `Run this host's part of its cluster until a signal: the agent and, where the
cluster made it one, the engine. The host must have joined (` + "`orch join`" + `) or
begun (` + "`orch cluster init`" + `) a cluster; both start this by themselves. Unit files
call it. Tasks go on running when it ends. Its log goes to standard error.`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := useHome(dir); err != nil {
				return err
			}
			where, err := home()
			if err != nil {
				return err
			}
			d, err := openDaemon(where, os.Stderr, bare)
			if err != nil {
				return err
			}
			defer d.Close()
			err = d.Run(cmd.Context())
			if cmd.Context().Err() != nil {
				return nil
			}
			return d.Left(err)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "data `folder` of this host (default $ORCH_HOME)")
	cmd.Flags().BoolVar(&bare, "no-agent", false, "run no tasks here, only the engine")
	return cmd
}

// useHome makes dir the data folder of this process.
func useHome(dir string) error {
	if dir == "" {
		return nil
	}
	return os.Setenv("ORCH_HOME", dir)
}

// tidyWithin bounds how long an engine that is told to end waits for what
// stopped tasks leave.
const tidyWithin = 30 * time.Second

// tidy lets the agent take away what is left of tasks, if all stacks were
// stopped; tasks that are wanted go on running.
func (l *local) tidy(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, tidyWithin)
	defer cancel()
	if allStopped(ctx, l.client) {
		l.bareNow(ctx)
	}
}

package main

import (
	"context"
	"os"
	"time"

	"connectrpc.com/connect"

	"github.com/spf13/cobra"

	"orch/engine/api"
)

func engineCommand() *cobra.Command {
	var listen string
	cmd := &cobra.Command{
		Use:   "engine",
		Short: "Run an engine and its agent in the foreground, without deploying",
		Long: `Run an engine and an agent on this machine until a signal. Tasks go on running
when it ends, and are adopted, not restarted, when it begins again: so it can be
supervised and upgraded like any other daemon. Its log goes to standard error.`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := startLocal(cmd.Context(), listen, os.Stderr)
			if err != nil {
				return err
			}
			defer l.Close()
			select {
			case <-cmd.Context().Done():
				l.tidy(context.WithoutCancel(cmd.Context()))
				return nil
			case err := <-l.failed:
				return err
			}
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "", "`address` of the TLS port (default 127.0.0.1 and a free port)")
	return cmd
}

// tidyWithin bounds how long an engine that is told to end waits for what
// stopped tasks leave.
const tidyWithin = 30 * time.Second

// tidy lets the agent take away what is left of tasks, if all stacks were
// stopped; tasks that are wanted go on running.
func (l *local) tidy(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, tidyWithin)
	defer cancel()
	list, err := l.client.ListStacks(ctx, connect.NewRequest(&api.ListStacksRequest{}))
	if err != nil {
		return
	}
	for _, s := range list.Msg.Stacks {
		if !s.Stopped {
			return
		}
	}
	l.bare(ctx)
}

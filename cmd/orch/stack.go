package main

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"orch/engine/api"
)

func stackCommand() *cobra.Command {
	stack := &cobra.Command{Use: "stack", Short: "Look at stacks; stop, start or remove one, go back to an earlier release"}
	stack.AddCommand(stackLs(), stackPs(), stackStop(), stackStart(), stackRm(), stackReleases(), stackRollback())
	return stack
}

func stackLs() *cobra.Command {
	return listing(&cobra.Command{Use: "ls", Short: "List stacks", Args: exactly()},
		func(ctx context.Context, client clusterClient, _ []string) ([]*api.StackStatus, error) {
			r, err := client.ListStacks(ctx, connect.NewRequest(&api.ListStacksRequest{}))
			if err != nil {
				return nil, err
			}
			return r.Msg.Stacks, nil
		},
		func(all []*api.StackStatus) *table {
			t := &table{header: []string{"STACK", "RELEASE", "SERVICES", "STATE", "WHY"}}
			for _, s := range all {
				state, why := stackState(s)
				t.add(s.Stack, strconv.FormatUint(s.Release, 10), strconv.Itoa(len(s.Services)), state, why)
			}
			return t
		})
}

func stackState(s *api.StackStatus) (state, why string) {
	for _, svc := range s.Services {
		if !svc.Converged && svc.Reason != "" && why == "" {
			why = svc.Name + ": " + svc.Reason
		}
	}
	for _, svc := range s.Services {
		if svc.Warning != "" && why == "" {
			why = svc.Name + ": " + svc.Warning
		}
	}
	switch {
	case s.Removed:
		return "removing", why
	case s.Stopped && s.Converged:
		return "stopped", ""
	case s.Stopped:
		return "stopping", why
	case s.Outcome == "rolled_back":
		return "rolled back", s.Reason
	case s.Phase == "rollback" && s.Outcome == "":
		return "going back", s.Reason
	case s.Failed:
		return "failed", cmp.Or(s.Reason, why)
	case s.Converged:
		return "running", ""
	}
	return "converging", why
}

func stackPs() *cobra.Command {
	return tasksOf("ps STACK", "List a stack's tasks", exactly("a stack"), func(name string) *api.ListTasksRequest {
		return &api.ListTasksRequest{Stack: name}
	})
}

// tasksOf makes a command that lists the tasks of what it is given.
func tasksOf(use, short string, args cobra.PositionalArgs, ask func(name string) *api.ListTasksRequest) *cobra.Command {
	var output string
	var all bool
	cmd := &cobra.Command{
		Use: use, Short: short, Args: args,
		RunE: func(cmd *cobra.Command, args []string) error {
			request := ask(args[0])
			request.All = all
			return listTasks(cmd, request, output)
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "ended tasks too")
	outputFlag(cmd, &output)
	return cmd
}

func stackStop() *cobra.Command {
	return &cobra.Command{
		Use: "stop STACK", Short: "Stop a stack's tasks and keep its releases",
		Long: `Stop all tasks of a stack, the ones that depend on others first. Its releases,
secrets and volumes stay; ` + "`orch stack start`" + ` or the next ` + "`orch run`" + ` brings it back.`,
		Args: exactly("a stack"),
		RunE: asking(func(cmd *cobra.Command, client clusterClient, args []string) error {
			return endStack(cmd, client, args[0], "stop")
		}),
	}
}

func stackStart() *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "start STACK", Short: "Start a stopped stack again", Args: exactly("a stack"),
		RunE: asking(func(cmd *cobra.Command, client clusterClient, args []string) error {
			if _, err := client.SetStack(cmd.Context(), connect.NewRequest(&api.SetStackRequest{Name: args[0], Action: "start"})); err != nil {
				return err
			}
			return watch(cmd.Context(), client, args[0], timeout, newProgress(cmd.OutOrStdout(), "text"))
		}),
	}
	waitFlag(cmd, &timeout)
	return cmd
}

func stackRm() *cobra.Command {
	return &cobra.Command{
		Use: "rm STACK", Short: "Remove a stack: its tasks, networks and releases",
		Long: `Stop a stack's tasks, the ones that depend on others first, and forget the stack
with its releases and secrets. Volumes stay, unless they were declared with
on_remove = "delete".`,
		Args: exactly("a stack"),
		RunE: asking(func(cmd *cobra.Command, client clusterClient, args []string) error {
			return endStack(cmd, client, args[0], "remove")
		}),
	}
}

// endStack stops or removes a stack and waits until its tasks are gone.
func endStack(cmd *cobra.Command, client clusterClient, stack, action string) error {
	if _, err := client.SetStack(cmd.Context(), connect.NewRequest(&api.SetStackRequest{Name: stack, Action: action})); err != nil {
		return err
	}
	return stopped(cmd.Context(), client, stack)
}

func stackReleases() *cobra.Command {
	return listing(&cobra.Command{Use: "releases STACK", Short: "List the releases that are kept (10), newest first", Args: exactly("a stack")},
		func(ctx context.Context, client clusterClient, args []string) ([]*api.Release, error) {
			r, err := client.ListReleases(ctx, connect.NewRequest(&api.ListReleasesRequest{Stack: args[0]}))
			if err != nil {
				return nil, err
			}
			return r.Msg.Releases, nil
		},
		func(all []*api.Release) *table {
			t := &table{header: []string{"RELEASE", "OUTCOME", "CAUSE", "BY", "AGE", "PARAMS", "REASON", "BUNDLE"}, wide: 7}
			for _, rel := range all {
				t.add(strconv.FormatUint(rel.Number, 10), releaseOutcome(rel), rel.Cause, rel.By, ago(rel.CreatedAt), rel.ParamsJson, rel.Reason, shorten(rel.BundleHash))
			}
			return t
		})
}

// releaseOutcome is what came of a release, or how far it is.
func releaseOutcome(r *api.Release) string {
	switch {
	case r.Outcome != "":
		return r.Outcome
	case r.Phase == "rollback":
		return "going back"
	case r.Phase == "queued":
		return "queued"
	}
	return "under way"
}

func stackRollback() *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "rollback STACK [RELEASE]", Short: "Make an earlier release the newest again",
		Long: `Deploy an earlier release again, as a release of its own: without a number, the
newest before the one that runs that ended well. The sources and parameters of that time are used; nothing
is evaluated anew. Waits until it has converged.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := some("a stack")(cmd, args); err != nil {
				return err
			}
			return upTo(2)(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			ask := &api.RollbackStackRequest{Stack: args[0]}
			if len(args) == 2 {
				n, err := strconv.ParseUint(args[1], 10, 64)
				if err != nil || n == 0 {
					return &exitError{2, fmt.Sprintf("orch: %q is no release's number; `orch stack releases %s` lists them", args[1], args[0])}
				}
				ask.Release = n
			}
			return asking(func(cmd *cobra.Command, client clusterClient, _ []string) error {
				r, err := client.RollbackStack(cmd.Context(), connect.NewRequest(ask))
				if err != nil {
					return err
				}
				return follow(cmd, client, r.Msg, timeout)
			})(cmd, args)
		},
	}
	waitFlag(cmd, &timeout)
	return cmd
}

func waitFlag(cmd *cobra.Command, timeout *time.Duration) {
	cmd.Flags().DurationVar(timeout, "timeout", 10*time.Minute, "give up waiting after this `time`; 0: never")
}

// follow shows a release that was just made until it has converged.
func follow(cmd *cobra.Command, client clusterClient, r *api.ApplyResponse, timeout time.Duration) error {
	show := newProgress(cmd.OutOrStdout(), "text")
	show.release(r)
	return watch(cmd.Context(), client, r.Stack, timeout, show)
}

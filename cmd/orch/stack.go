package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"orch/engine/api"
)

func stackCommand() *cobra.Command {
	stack := &cobra.Command{Use: "stack", Short: "Look at stacks, remove one, go back to an earlier release"}
	stack.AddCommand(stackLs(), stackPs(), stackRm(), stackReleases(), stackRollback())
	return stack
}

func stackLs() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "ls", Short: "List stacks", Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, _, err := connectCluster(cmd.Context())
			if err != nil {
				return err
			}
			r, err := client.ListStacks(cmd.Context(), connect.NewRequest(&api.ListStacksRequest{}))
			if err != nil {
				return err
			}
			if output == "json" {
				return printMessages(cmd, r.Msg.Stacks)
			}
			t := table{header: []string{"STACK", "RELEASE", "SERVICES", "STATE", "WHY"}}
			for _, s := range r.Msg.Stacks {
				state, why := stackState(s)
				t.add(s.Stack, strconv.FormatUint(s.Release, 10), strconv.Itoa(len(s.Services)), state, why)
			}
			return t.print(cmd, output)
		},
	}
	outputFlag(cmd, &output)
	return cmd
}

func stackState(s *api.StackStatus) (state, why string) {
	for _, svc := range s.Services {
		if !svc.Converged && svc.Reason != "" && why == "" {
			why = svc.Name + ": " + svc.Reason
		}
	}
	switch {
	case s.Removed:
		return "removing", why
	case s.Stopped && s.Converged:
		return "stopped", ""
	case s.Stopped:
		return "stopping", why
	case s.Failed:
		return "failed", why
	case s.Converged:
		return "running", ""
	}
	return "converging", why
}

func stackPs() *cobra.Command {
	var output string
	var all bool
	cmd := &cobra.Command{
		Use: "ps STACK", Short: "List a stack's tasks", Args: exactly("a stack"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return listTasks(cmd, &api.ListTasksRequest{Stack: args[0], All: all}, output)
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "ended tasks too")
	outputFlag(cmd, &output)
	return cmd
}

func stackRm() *cobra.Command {
	return &cobra.Command{
		Use: "rm STACK", Short: "Remove a stack: its tasks, networks and releases",
		Long: `Stop a stack's tasks, the ones that depend on others first, and forget the stack
with its releases and secrets. Volumes stay, unless they were declared with
on_remove = "delete".`,
		Args: exactly("a stack"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, _, err := connectCluster(cmd.Context())
			if err != nil {
				return err
			}
			if _, err := client.SetStack(cmd.Context(), connect.NewRequest(&api.SetStackRequest{Name: args[0], Action: "remove"})); err != nil {
				return err
			}
			return stopped(cmd.Context(), client, args[0])
		},
	}
}

func stackReleases() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "releases STACK", Short: "List the releases that are kept (10), newest first", Args: exactly("a stack"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, _, err := connectCluster(cmd.Context())
			if err != nil {
				return err
			}
			r, err := client.ListReleases(cmd.Context(), connect.NewRequest(&api.ListReleasesRequest{Stack: args[0]}))
			if err != nil {
				return err
			}
			if output == "json" {
				return printMessages(cmd, r.Msg.Releases)
			}
			t := table{header: []string{"RELEASE", "CAUSE", "BY", "AGE", "PARAMS", "BUNDLE"}, wide: 5}
			for _, rel := range r.Msg.Releases {
				t.add(strconv.FormatUint(rel.Number, 10), rel.Cause, rel.By, ago(rel.CreatedAt), rel.ParamsJson, shorten(rel.BundleHash))
			}
			return t.print(cmd, output)
		},
	}
	outputFlag(cmd, &output)
	return cmd
}

func stackRollback() *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "rollback STACK [RELEASE]", Short: "Make an earlier release the newest again",
		Long: `Deploy an earlier release again, as a release of its own: without a number, the
one before the newest. The sources and parameters of that time are used; nothing
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
			client, _, err := connectCluster(cmd.Context())
			if err != nil {
				return err
			}
			r, err := client.RollbackStack(cmd.Context(), connect.NewRequest(ask))
			if err != nil {
				return err
			}
			return follow(cmd, client, r.Msg, timeout)
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

func serviceCommand() *cobra.Command {
	service := &cobra.Command{Use: "service", Short: "Look at services, scale or restart one"}
	service.AddCommand(serviceLs(), servicePs(), serviceInspect(), serviceScale(), serviceRestart(), serviceLogs())
	return service
}

func serviceLs() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "ls [STACK]", Short: "List services", Args: upTo(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, _, err := connectCluster(cmd.Context())
			if err != nil {
				return err
			}
			r, err := client.ListServices(cmd.Context(), connect.NewRequest(&api.ListServicesRequest{Stack: strings.Join(args, "")}))
			if err != nil {
				return err
			}
			if output == "json" {
				return printMessages(cmd, r.Msg.Stacks)
			}
			t := table{header: []string{"SERVICE", "MODE", "READY", "STATE", "PORTS", "WHY", "IMAGE", "VERSION", "RELEASE"}, wide: 6}
			for _, st := range r.Msg.Stacks {
				for _, s := range st.Services {
					var ports []string
					for _, p := range s.Ports {
						ports = append(ports, fmt.Sprintf("%d->%d", p.Publish, p.Target))
					}
					t.add(st.Stack+"/"+s.Name, s.Mode, fmt.Sprintf("%d/%d", s.Ready, s.Want), s.State, strings.Join(ports, " "), s.Reason,
						s.Image, s.Version, strconv.FormatUint(s.Release, 10))
				}
			}
			return t.print(cmd, output)
		},
	}
	outputFlag(cmd, &output)
	return cmd
}

// serviceID checks the form of a service's name.
func serviceID(name string) error {
	if stack, service, ok := strings.Cut(name, "/"); !ok || stack == "" || service == "" {
		return &exitError{2, fmt.Sprintf("orch: %q is no service: write STACK/SERVICE, such as tick/influxdb", name)}
	}
	return nil
}

func servicePs() *cobra.Command {
	var output string
	var all bool
	cmd := &cobra.Command{
		Use: "ps STACK/SERVICE", Short: "List a service's tasks", Args: exactly("a service"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := serviceID(args[0]); err != nil {
				return err
			}
			return listTasks(cmd, &api.ListTasksRequest{Service: args[0], All: all}, output)
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "ended tasks too")
	outputFlag(cmd, &output)
	return cmd
}

func serviceInspect() *cobra.Command {
	return &cobra.Command{
		Use: "inspect STACK/SERVICE", Short: "Print all that is known of a service, as JSON", Args: exactly("a service"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := serviceID(args[0]); err != nil {
				return err
			}
			client, _, err := connectCluster(cmd.Context())
			if err != nil {
				return err
			}
			r, err := client.InspectService(cmd.Context(), connect.NewRequest(&api.InspectServiceRequest{Service: args[0]}))
			if err != nil {
				return err
			}
			return printMessages(cmd, []*api.InspectServiceResponse{r.Msg})
		},
	}
}

func serviceScale() *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "scale STACK/SERVICE=REPLICAS", Short: "Change a service's number of replicas",
		Long: `Change a service's number of replicas, as a release of its own; no running task
is restarted. The next ` + "`orch run`" + ` brings the playbook's number back: ` + "`orch plan`" + ` shows it.`,
		Args: exactly("STACK/SERVICE=REPLICAS"),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, count, _ := strings.Cut(args[0], "=")
			n, err := strconv.ParseInt(count, 10, 32)
			if err != nil || n < 0 {
				return &exitError{2, fmt.Sprintf("orch: %q: write STACK/SERVICE=REPLICAS, such as web/app=3", args[0])}
			}
			if err := serviceID(name); err != nil {
				return err
			}
			client, _, err := connectCluster(cmd.Context())
			if err != nil {
				return err
			}
			r, err := client.ScaleService(cmd.Context(), connect.NewRequest(&api.ScaleServiceRequest{Service: name, Replicas: int32(n)}))
			if err != nil {
				return err
			}
			return follow(cmd, client, r.Msg, timeout)
		},
	}
	waitFlag(cmd, &timeout)
	return cmd
}

func serviceRestart() *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "restart STACK/SERVICE", Short: "Replace all tasks of a service, by its update policy", Args: exactly("a service"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := serviceID(args[0]); err != nil {
				return err
			}
			client, _, err := connectCluster(cmd.Context())
			if err != nil {
				return err
			}
			r, err := client.RestartService(cmd.Context(), connect.NewRequest(&api.RestartServiceRequest{Service: args[0]}))
			if err != nil {
				return err
			}
			return follow(cmd, client, r.Msg, timeout)
		},
	}
	waitFlag(cmd, &timeout)
	return cmd
}

func serviceLogs() *cobra.Command {
	o := &logOptions{}
	cmd := &cobra.Command{
		Use: "logs STACK/SERVICE", Short: "Print a service's output", Args: exactly("a service"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := serviceID(args[0]); err != nil {
				return err
			}
			return o.print(cmd, args[0])
		},
	}
	o.flags(cmd)
	return cmd
}

package main

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"orch/engine/api"
)

func serviceCommand() *cobra.Command {
	service := &cobra.Command{Use: "service", Short: "Look at services, scale or restart one"}
	service.AddCommand(serviceLs(), servicePs(), serviceInspect(), serviceScale(), serviceRestart(), serviceLogs())
	return service
}

func serviceLs() *cobra.Command {
	return listing(&cobra.Command{Use: "ls [STACK]", Short: "List services", Args: upTo(1)},
		func(ctx context.Context, client clusterClient, args []string) ([]*api.StackStatus, error) {
			r, err := client.ListServices(ctx, connect.NewRequest(&api.ListServicesRequest{Stack: strings.Join(args, "")}))
			if err != nil {
				return nil, err
			}
			return r.Msg.Stacks, nil
		},
		func(all []*api.StackStatus) *table {
			t := &table{header: []string{"SERVICE", "MODE", "READY", "STATE", "PORTS", "WHY", "IMAGE", "VERSION", "RELEASE"}, wide: 6}
			for _, st := range all {
				for _, s := range st.Services {
					var ports []string
					for _, p := range s.Ports {
						ports = append(ports, fmt.Sprintf("%d->%d", p.Publish, p.Target))
					}
					t.add(st.Stack+"/"+s.Name, s.Mode, fmt.Sprintf("%d/%d", s.Ready, s.Want), s.State, strings.Join(ports, " "), cmp.Or(s.Reason, s.Warning),
						s.Image, s.Version, strconv.FormatUint(s.Release, 10))
				}
			}
			return t
		})
}

// serviceID checks the form of a service's name.
func serviceID(name string) error {
	if stack, service, ok := strings.Cut(name, "/"); !ok || stack == "" || service == "" {
		return &exitError{2, fmt.Sprintf("orch: %q is no service: write STACK/SERVICE, such as tick/influxdb", name)}
	}
	return nil
}

func servicePs() *cobra.Command {
	return tasksOf("ps STACK/SERVICE", "List a service's tasks", service, func(name string) *api.ListTasksRequest {
		return &api.ListTasksRequest{Service: name}
	})
}

func serviceInspect() *cobra.Command {
	return &cobra.Command{
		Use: "inspect STACK/SERVICE", Short: "Print all that is known of a service, as JSON", Args: service,
		RunE: asking(func(cmd *cobra.Command, client clusterClient, args []string) error {
			r, err := client.InspectService(cmd.Context(), connect.NewRequest(&api.InspectServiceRequest{Service: args[0]}))
			if err != nil {
				return err
			}
			return printMessages(cmd, []*api.InspectServiceResponse{r.Msg})
		}),
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
			return asking(func(cmd *cobra.Command, client clusterClient, _ []string) error {
				r, err := client.ScaleService(cmd.Context(), connect.NewRequest(&api.ScaleServiceRequest{Service: name, Replicas: int32(n)}))
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

func serviceRestart() *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "restart STACK/SERVICE", Short: "Replace all tasks of a service, by its update policy", Args: service,
		RunE: asking(func(cmd *cobra.Command, client clusterClient, args []string) error {
			r, err := client.RestartService(cmd.Context(), connect.NewRequest(&api.RestartServiceRequest{Service: args[0]}))
			if err != nil {
				return err
			}
			return follow(cmd, client, r.Msg, timeout)
		}),
	}
	waitFlag(cmd, &timeout)
	return cmd
}

func serviceLogs() *cobra.Command {
	o := &logOptions{}
	cmd := &cobra.Command{
		Use: "logs STACK/SERVICE", Short: "Print a service's output", Args: service,
		RunE: func(cmd *cobra.Command, args []string) error { return o.print(cmd, args[0]) },
	}
	o.flags(cmd)
	return cmd
}

package main

import (
	"context"
	"strconv"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"orch/engine/api"
)

func rolloutCommand() *cobra.Command {
	rollout := &cobra.Command{Use: "rollout", Short: "Look at rollouts; pause, resume or abort one"}
	rollout.AddCommand(rolloutLs(),
		rolloutSignal("pause", "Stop a rollout where it is"),
		rolloutSignal("resume", "Let a paused rollout go on"),
		rolloutSignal("abort", "Take a rollout back"))
	return rollout
}

func rolloutLs() *cobra.Command {
	waits := map[string]string{} // by service: what a rollout under way waits for
	return listing(&cobra.Command{Use: "ls", Short: "List each service's newest rollout", Args: exactly()},
		func(ctx context.Context, client clusterClient, _ []string) ([]*api.Rollout, error) {
			r, err := client.ListStacks(ctx, connect.NewRequest(&api.ListStacksRequest{}))
			if err != nil {
				return nil, err
			}
			var all []*api.Rollout
			for _, st := range r.Msg.Stacks {
				for _, s := range st.Services {
					if s.Rollout != nil {
						all = append(all, s.Rollout)
						waits[s.Rollout.ServiceId] = s.Reason
					}
				}
			}
			return all, nil
		},
		func(all []*api.Rollout) *table {
			t := &table{header: []string{"SERVICE", "FROM", "TO", "OUTCOME", "OPS", "AGE", "WHY"}}
			for _, ro := range all {
				outcome, why := ro.Outcome, ro.Reason
				if outcome == "" {
					outcome, why = "under way", waits[ro.ServiceId]
				}
				t.add(ro.ServiceId, ro.FromVersion, ro.ToVersion, outcome, strconv.Itoa(len(ro.Journal)), ago(ro.CreatedAt), why)
			}
			return t
		})
}

func rolloutSignal(name, short string) *cobra.Command {
	return &cobra.Command{
		Use: name + " STACK/SERVICE", Short: short, Args: service,
		RunE: asking(func(cmd *cobra.Command, client clusterClient, args []string) error {
			_, err := client.SignalRollout(cmd.Context(), connect.NewRequest(&api.SignalRolloutRequest{Service: args[0], Signal: name}))
			return err
		}),
	}
}

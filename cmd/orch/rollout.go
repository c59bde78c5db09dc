package main

import (
	"cmp"
	"context"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"orch/engine/api"
)

func rolloutCommand() *cobra.Command {
	rollout := &cobra.Command{
		Use: "rollout", Short: "Look at rollouts, and act on one",
		Long: `A rollout brings a service from one version to another. Its strategy, a function
of the playbook or of the library @orch//rollout.star, does so in ops, each of
which is kept in the replicated log with what came of it.

An outcome is one of:
  succeeded       all slots run the new version, and were seen healthy
  rolled_back     it failed, or was aborted; the old version runs again
  paused          by on_failure = "pause" or an operator; resume, retry or abort it
  failed          it failed and was left as it is; retry it, or deploy again
  needs_operator  the strategy itself is broken; the service runs on; abort it
  superseded      a newer release came`,
	}
	rollout.AddCommand(rolloutLs(), rolloutWatch(), rolloutInspect(),
		rolloutSignal("promote", "Let a rollout go on that waits for it", "Send the signal that r.wait_signal(\"promote\") waits for."),
		rolloutSignal("pause", "Stop a rollout where it is", "What it has begun goes on being looked after; nothing further is begun until `resume`."),
		rolloutSignal("resume", "Let a paused rollout go on", "Go on where it was paused; one that failed begins from its top."),
		rolloutSignal("abort", "Take a rollout back", "Go back to the version before, by the service's rollback policy and without the\nstrategy. The release that it is part of goes back with it."),
		rolloutSignal("retry", "Begin a rollout from its top", "Begin a rollout that was paused, failed or is broken from its top. What runs the new\nversion already is not restarted."),
		rolloutNamedSignal())
	return rollout
}

func rolloutLs() *cobra.Command {
	status := map[string]*api.ServiceStatus{} // by service: what a rollout under way waits for
	return listing(&cobra.Command{Use: "ls [STACK]", Short: "List each service's newest rollout, and what it waits for", Args: upTo(1)},
		func(ctx context.Context, client clusterClient, args []string) ([]*api.Rollout, error) {
			r, err := client.ListServices(ctx, connect.NewRequest(&api.ListServicesRequest{Stack: strings.Join(args, "")}))
			if err != nil {
				return nil, err
			}
			var all []*api.Rollout
			for _, st := range r.Msg.Stacks {
				for _, s := range st.Services {
					if s.Rollout != nil {
						all = append(all, s.Rollout)
						status[s.Rollout.ServiceId] = s
					}
				}
			}
			return all, nil
		},
		func(all []*api.Rollout) *table {
			t := &table{header: []string{"SERVICE", "RELEASE", "FROM", "TO", "OUTCOME", "OPS", "AGE", "WHY", "FOR", "UNTIL", "STRATEGY"}, wide: 8}
			for _, ro := range all {
				s := status[ro.ServiceId]
				why, since, until := ro.Reason, ro.EndedAt, (*timestamppb.Timestamp)(nil)
				if ro.Outcome == "" {
					why, since, until = s.Reason, s.Since, s.Deadline
				}
				t.add(ro.ServiceId, strconv.FormatUint(ro.Release, 10), cmp.Or(ro.FromVersion, "-"), ro.ToVersion, outcome(ro), strconv.Itoa(len(ro.Journal)),
					ago(ro.CreatedAt), why, ago(since), clock(until), strategyName(ro))
			}
			return t
		})
}

// outcome is a rollout's, or how far it is.
func outcome(r *api.Rollout) string {
	switch {
	case r.Outcome != "":
		return r.Outcome
	case r.Phase == "rollback":
		return "rolling back"
	case len(r.Journal) == 0:
		return "waiting"
	}
	return "under way"
}

func strategyName(r *api.Rollout) string {
	_, name, _ := strings.Cut(r.Policy.GetStrategy(), ".star:")
	return cmp.Or(name, "rolling")
}

// clock is a moment as people read it who live in the same days.
func clock(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	at := t.AsTime().Local()
	if time.Until(at).Abs() < 12*time.Hour {
		return at.Format("15:04:05")
	}
	return at.Format("Jan 2 15:04")
}

func rolloutSignal(name, short, long string) *cobra.Command {
	return &cobra.Command{
		Use: name + " STACK/SERVICE", Short: short, Long: long, Args: service,
		RunE: asking(func(cmd *cobra.Command, client clusterClient, args []string) error {
			return sendSignal(cmd, client, args[0], name)
		}),
	}
}

func rolloutNamedSignal() *cobra.Command {
	return &cobra.Command{
		Use: "signal STACK/SERVICE NAME", Short: "Send a signal that a strategy waits for by another name than promote",
		Args: func(cmd *cobra.Command, args []string) error {
			if err := exactly("a service, STACK/SERVICE", "a signal's name")(cmd, args); err != nil {
				return err
			}
			return serviceID(args[0])
		},
		RunE: asking(func(cmd *cobra.Command, client clusterClient, args []string) error {
			return sendSignal(cmd, client, args[0], args[1])
		}),
	}
}

func sendSignal(cmd *cobra.Command, client clusterClient, service, name string) error {
	_, err := client.SignalRollout(cmd.Context(), connect.NewRequest(&api.SignalRolloutRequest{Service: service, Signal: name}))
	return err
}

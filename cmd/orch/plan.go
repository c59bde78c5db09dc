package main

import (
	"errors"
	"fmt"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"orch/engine/api"
	"orch/engine/spec"
)

func planCommand() *cobra.Command {
	in := &inputs{}
	var output, file string
	cmd := &cobra.Command{
		Use: "plan PLAYBOOK", Short: "Show what deploying a playbook would change",
		Long: `Compare what a playbook declares with what the cluster has, field by field, with
the place in the playbook that asks for each change. Then show what the strategy
of each rollout would do if all went well, and where new tasks would land as the
nodes are now: both are tried out on a copy of the cluster. Where no cluster
runs, everything is new.

--out keeps the plan; ` + "`orch run --plan FILE`" + ` does exactly that, or refuses if
another release, other sources or other ops have come about since.

Exit code 0: nothing would change; 3: something would; 1: so would it, but a
rollout can't end well.`,
		Args: exactly("a playbook"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if output != "text" && output != "json" {
				return &exitError{2, fmt.Sprintf("orch: -o %s: want text or json", output)}
			}
			r, err := in.evaluate(cmd, args[0])
			if err != nil {
				return err
			}
			plan := &api.Plan{Stack: r.Spec.Name, Changes: spec.Changes(nil, r.Spec)}
			cluster := ""
			client, err := connectCluster(cmd.Context())
			switch {
			case err == nil:
				res, err := client.Plan(cmd.Context(), connect.NewRequest(&api.PlanRequest{Bundle: r.Bundle, ParamsJson: r.ParamsJSON}))
				if err != nil {
					return applyError(err)
				}
				plan = res.Msg.Plan
				info, err := client.Info(cmd.Context(), connect.NewRequest(&api.InfoRequest{}))
				if err != nil {
					return err
				}
				cluster = info.Msg.Cluster.GetId()
			case !errors.Is(err, errNoCluster):
				return err
			case file != "":
				return &exitError{1, "orch: a plan is kept for a cluster, and none runs here"}
			default:
				fmt.Fprintln(cmd.ErrOrStderr(), "No cluster runs here: everything is new.")
			}
			if file != "" {
				if err := writePlan(file, cluster, plan, r.Bundle); err != nil {
					return err
				}
			}
			if output == "json" {
				if err := printMessages(cmd, []*api.Plan{plan}); err != nil {
					return err
				}
			} else {
				printPlan(cmd.OutOrStdout(), plan)
			}
			if r := broken(plan); r != nil && output != "json" {
				return &exitError{1, fmt.Sprintf("orch: the rollout of %s would end as %s: %s", r.Service, r.Outcome, r.Reason)}
			} else if r != nil {
				return &exitError{code: 1}
			}
			if len(plan.Changes) > 0 {
				return &exitError{code: 3}
			}
			return nil
		},
	}
	in.flags(cmd)
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	cmd.Flags().StringVar(&file, "out", "", "keep the plan in a `file`, for orch run --plan")
	return cmd
}

// broken is a rollout of which a plan knows already that it won't end well.
func broken(p *api.Plan) *api.PlannedRollout {
	for _, r := range p.Rollouts {
		if r.Outcome != "" && r.Outcome != "succeeded" {
			return r
		}
	}
	return nil
}

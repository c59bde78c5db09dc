package main

import (
	"errors"
	"fmt"
	"io"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"orch/engine/api"
	"orch/engine/spec"
)

func planCommand() *cobra.Command {
	in := &inputs{}
	var output string
	cmd := &cobra.Command{
		Use: "plan PLAYBOOK", Short: "Show what deploying a playbook would change",
		Long: `Compare what a playbook declares with what the cluster has, field by field, with
the place in the playbook that asks for each change. Where no cluster runs,
everything is new. Exit code 0: nothing would change; 3: something would.`,
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
			client, err := connectCluster(cmd.Context())
			switch {
			case err == nil:
				res, err := client.Plan(cmd.Context(), connect.NewRequest(&api.PlanRequest{Bundle: r.Bundle, ParamsJson: r.ParamsJSON}))
				if err != nil {
					return applyError(err)
				}
				plan = res.Msg.Plan
			case !errors.Is(err, errNoCluster):
				return err
			default:
				fmt.Fprintln(cmd.ErrOrStderr(), "No cluster runs here: everything is new.")
			}
			if output == "json" {
				if err := printMessages(cmd, []*api.Plan{plan}); err != nil {
					return err
				}
			} else {
				printPlan(cmd.OutOrStdout(), plan)
			}
			if len(plan.Changes) > 0 {
				return &exitError{code: 3}
			}
			return nil
		},
	}
	in.flags(cmd)
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	return cmd
}

var marks = map[string]string{"create": "+", "update": "~", "delete": "-"}

var effects = map[string]string{
	"start": "tasks start", "stop": "tasks stop", "rollout": "tasks are replaced", "in-place": "no task restarts", "none": "",
}

func printPlan(out io.Writer, p *api.Plan) {
	if len(p.Changes) == 0 {
		fmt.Fprintf(out, "Stack %s: no changes to release %d.\n", p.Stack, p.BaseRelease)
		return
	}
	fmt.Fprintf(out, "Stack %s, release %d -> %d:\n", p.Stack, p.BaseRelease, p.BaseRelease+1)
	count := map[string]int{}
	for _, c := range p.Changes {
		count[c.Action]++
		line := fmt.Sprintf("%s %s %s", marks[c.Action], c.Kind, c.Name)
		if e := effects[c.Effect]; e != "" {
			line += " (" + e + ")"
		}
		fmt.Fprintln(out, line+at(c.Origin))
		for _, f := range c.Fields {
			where := ""
			if f.Origin != c.Origin {
				where = at(f.Origin)
			}
			fmt.Fprintf(out, "    %s: %s -> %s%s\n", f.Path, orNone(f.Old), orNone(f.New), where)
		}
	}
	fmt.Fprintf(out, "%d to create, %d to update, %d to delete.\n", count["create"], count["update"], count["delete"])
}

func at(origin string) string {
	if origin == "" {
		return ""
	}
	return "  [" + origin + "]"
}

func orNone(text string) string {
	if text == "" {
		return "(none)"
	}
	return text
}

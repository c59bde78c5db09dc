package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"orch/engine/api"
	"orch/engine/ca"
)

func operatorCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "operator", Short: "Say who may use the cluster"}
	cmd.AddCommand(operatorAdd(), operatorLs(), operatorRm())
	return cmd
}

func operatorAdd() *cobra.Command {
	var role, out string
	valid := ca.OperatorLife
	cmd := &cobra.Command{
		Use: "add NAME", Short: "Let somebody use the cluster", Args: exactly("a name"),
		Long: `Make an operator and write a context for it into a file, which it takes with
` + "`orch context import`" + `. Roles: view sees all but secrets' values; deploy may
also run and change stacks and secrets; admin may do everything. The certificate
renews itself while it is used; ` + "`orch operator rm`" + ` ends it at once.`,
		Example: "  orch operator add ci --role deploy --out ci.json",
	}
	cmd.RunE = asking(func(cmd *cobra.Command, client clusterClient, args []string) error {
		if out == "" {
			out = args[0] + ".orch-context.json"
		}
		key, err := ca.NewKey()
		if err != nil {
			return err
		}
		csr, err := ca.Request(key)
		if err != nil {
			return err
		}
		r, err := client.AddOperator(cmd.Context(), connect.NewRequest(&api.AddOperatorRequest{Name: args[0], Role: role, Csr: csr, Valid: durationpb.New(valid)}))
		if err != nil {
			return err
		}
		text, err := keyPEM(key)
		if err != nil {
			return err
		}
		c, err := newContext(r.Msg, text)
		if err != nil {
			return err
		}
		b, err := json.MarshalIndent(c, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(out, append(b, '\n'), 0o600); err != nil {
			return fmt.Errorf("cannot write the context: %w", err)
		}
		fmt.Fprintf(cmd.OutOrStdout(), "Operator %s (%s) takes %s with: orch context import NAME %s\n", args[0], role, out, out)
		return nil
	})
	cmd.Flags().StringVar(&role, "role", "view", "admin, deploy or view")
	cmd.Flags().StringVar(&out, "out", "", "`file` to write (default NAME.orch-context.json)")
	cmd.Flags().DurationVar(&valid, "valid", valid, "how `long` the certificate is good unless it is renewed")
	return cmd
}

func operatorLs() *cobra.Command {
	return listing(&cobra.Command{Use: "ls", Short: "List operators", Args: exactly()},
		func(ctx context.Context, client clusterClient, _ []string) ([]*api.Operator, error) {
			r, err := client.ListOperators(ctx, connect.NewRequest(&api.ListOperatorsRequest{}))
			if err != nil {
				return nil, err
			}
			return r.Msg.Operators, nil
		},
		func(all []*api.Operator) *table {
			t := &table{header: []string{"NAME", "ROLE", "SINCE", "BY"}}
			for _, o := range all {
				t.add(o.Name, o.Role, o.CreatedAt.AsTime().Local().Format(time.DateTime), o.CreatedBy)
			}
			return t
		})
}

func operatorRm() *cobra.Command {
	return &cobra.Command{Use: "rm NAME", Short: "Let an operator in no longer, at once", Args: exactly("a name"), RunE: asking(func(cmd *cobra.Command, client clusterClient, args []string) error {
		_, err := client.DeleteOperator(cmd.Context(), connect.NewRequest(&api.DeleteOperatorRequest{Name: args[0]}))
		return err
	})}
}

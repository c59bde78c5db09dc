package main

import (
	"context"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
)

// listing makes a command that lists: it asks the cluster by fetch and prints
// the answer as JSON or, through rows, as a table.
func listing[T proto.Message](cmd *cobra.Command, fetch func(context.Context, clusterClient, []string) ([]T, error), rows func([]T) *table) *cobra.Command {
	var output string
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		client, err := connectCluster(cmd.Context())
		if err != nil {
			return err
		}
		all, err := fetch(cmd.Context(), client, args)
		switch {
		case err != nil:
			return err
		case output == "json":
			return printMessages(cmd, all)
		}
		return rows(all).print(cmd, output)
	}
	outputFlag(cmd, &output)
	return cmd
}

// asking makes RunE of a command that needs the cluster.
func asking(do func(cmd *cobra.Command, client clusterClient, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		client, err := connectCluster(cmd.Context())
		if err != nil {
			return err
		}
		return do(cmd, client, args)
	}
}

// service is a cobra.PositionalArgs: one argument, STACK/SERVICE.
func service(cmd *cobra.Command, args []string) error {
	if err := exactly("a service, STACK/SERVICE")(cmd, args); err != nil {
		return err
	}
	return serviceID(args[0])
}

package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"orch/engine/api"
)

func secretCommand() *cobra.Command {
	secret := &cobra.Command{
		Use: "secret", Short: "Make, list and remove secrets",
		Long: `Secrets made here are for playbooks that declare them with external = True. Their
values are encrypted in the log and on disk, and can't be read back; tasks get
them as files on tmpfs.`,
	}
	secret.AddCommand(secretCreate(), secretLs(), secretRm())
	return secret
}

func secretCreate() *cobra.Command {
	var replace bool
	cmd := &cobra.Command{
		Use: "create NAME FILE", Short: "Make a secret from a file, or from standard input with -", Args: exactly("a name", "a file or -"),
		RunE: func(cmd *cobra.Command, args []string) error {
			value, err := readSecret(cmd, args[1])
			if err != nil {
				return err
			}
			return asking(func(cmd *cobra.Command, client clusterClient, args []string) error {
				_, err := client.PutSecret(cmd.Context(), connect.NewRequest(&api.PutSecretRequest{Name: args[0], Value: value, Replace: replace}))
				return err
			})(cmd, args)
		},
	}
	cmd.Flags().BoolVar(&replace, "replace", false, "give an existing secret a new value; services get it with their next release")
	return cmd
}

func readSecret(cmd *cobra.Command, path string) ([]byte, error) {
	if path == "-" {
		return io.ReadAll(cmd.InOrStdin())
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the secret: %w", err)
	}
	return b, nil
}

func secretLs() *cobra.Command {
	return listing(&cobra.Command{Use: "ls", Short: "List secrets, without their values", Args: exactly()},
		func(ctx context.Context, client clusterClient, _ []string) ([]*api.SecretValue, error) {
			r, err := client.ListSecrets(ctx, connect.NewRequest(&api.ListSecretsRequest{}))
			if err != nil {
				return nil, err
			}
			return r.Msg.Secrets, nil
		},
		func(all []*api.SecretValue) *table {
			t := &table{header: []string{"NAME", "STACK", "AGE"}}
			for _, s := range all {
				t.add(s.Name, s.Stack, ago(s.CreatedAt))
			}
			return t
		})
}

func secretRm() *cobra.Command {
	return &cobra.Command{
		Use: "rm NAME", Short: "Remove a secret that no service uses", Args: exactly("a secret"),
		RunE: asking(func(cmd *cobra.Command, client clusterClient, args []string) error {
			_, err := client.RemoveSecret(cmd.Context(), connect.NewRequest(&api.RemoveSecretRequest{Name: args[0]}))
			return err
		}),
	}
}

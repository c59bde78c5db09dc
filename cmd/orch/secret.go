package main

import (
	"fmt"
	"io"
	"os"
	"strconv"

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
	var replace bool
	create := &cobra.Command{
		Use: "create NAME FILE", Short: "Make a secret from a file, or from standard input with -", Args: exactly("a name", "a file or -"),
		RunE: func(cmd *cobra.Command, args []string) error {
			value, err := readSecret(cmd, args[1])
			if err != nil {
				return err
			}
			client, _, err := connectCluster(cmd.Context())
			if err != nil {
				return err
			}
			_, err = client.PutSecret(cmd.Context(), connect.NewRequest(&api.PutSecretRequest{Name: args[0], Value: value, Replace: replace}))
			return err
		},
	}
	create.Flags().BoolVar(&replace, "replace", false, "give an existing secret a new value; services get it with their next release")
	var output string
	ls := &cobra.Command{
		Use: "ls", Short: "List secrets, without their values", Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, _, err := connectCluster(cmd.Context())
			if err != nil {
				return err
			}
			r, err := client.ListSecrets(cmd.Context(), connect.NewRequest(&api.ListSecretsRequest{}))
			if err != nil {
				return err
			}
			if output == "json" {
				return printMessages(cmd, r.Msg.Secrets)
			}
			t := table{header: []string{"NAME", "STACK", "AGE"}}
			for _, s := range r.Msg.Secrets {
				t.add(s.Name, s.Stack, ago(s.CreatedAt))
			}
			return t.print(cmd, output)
		},
	}
	outputFlag(ls, &output)
	rm := &cobra.Command{
		Use: "rm NAME", Short: "Remove a secret that no service uses", Args: exactly("a secret"),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, _, err := connectCluster(cmd.Context())
			if err != nil {
				return err
			}
			_, err = client.RemoveSecret(cmd.Context(), connect.NewRequest(&api.RemoveSecretRequest{Name: args[0]}))
			return err
		},
	}
	secret.AddCommand(create, ls, rm)
	return secret
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

func rolloutCommand() *cobra.Command {
	rollout := &cobra.Command{Use: "rollout", Short: "Look at rollouts; pause, resume or abort one"}
	var output string
	ls := &cobra.Command{
		Use: "ls", Short: "List each service's newest rollout", Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, _, err := connectCluster(cmd.Context())
			if err != nil {
				return err
			}
			r, err := client.ListStacks(cmd.Context(), connect.NewRequest(&api.ListStacksRequest{}))
			if err != nil {
				return err
			}
			var all []*api.Rollout
			t := table{header: []string{"SERVICE", "FROM", "TO", "OUTCOME", "OPS", "AGE", "WHY"}}
			for _, st := range r.Msg.Stacks {
				for _, s := range st.Services {
					if ro := s.Rollout; ro != nil {
						all = append(all, ro)
						outcome, why := ro.Outcome, ro.Reason
						if outcome == "" {
							outcome, why = "under way", s.Reason
						}
						t.add(ro.ServiceId, ro.FromVersion, ro.ToVersion, outcome, strconv.Itoa(len(ro.Journal)), ago(ro.CreatedAt), why)
					}
				}
			}
			if output == "json" {
				return printMessages(cmd, all)
			}
			return t.print(cmd, output)
		},
	}
	outputFlag(ls, &output)
	rollout.AddCommand(ls)
	for _, signal := range []struct{ name, short string }{
		{"pause", "Stop a rollout where it is"},
		{"resume", "Let a paused rollout go on"},
		{"abort", "Take a rollout back"},
	} {
		rollout.AddCommand(&cobra.Command{
			Use: signal.name + " STACK/SERVICE", Short: signal.short, Args: exactly("a service"),
			RunE: func(cmd *cobra.Command, args []string) error {
				if err := serviceID(args[0]); err != nil {
					return err
				}
				client, _, err := connectCluster(cmd.Context())
				if err != nil {
					return err
				}
				_, err = client.SignalRollout(cmd.Context(), connect.NewRequest(&api.SignalRolloutRequest{Service: args[0], Signal: signal.name}))
				return err
			},
		})
	}
	return rollout
}

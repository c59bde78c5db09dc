package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"orch/engine/api"
)

func clusterAutolock() *cobra.Command {
	var rotate bool
	cmd := &cobra.Command{
		Use: "autolock on|off", Short: "Lock the engines' keys when they stop", Args: exactly("on or off"),
		Long: `With autolock, the keys that open an engine's log and its certificate stand on its
disk only encrypted: an engine that starts waits for ` + "`orch cluster unlock`" + `.
Keep the unlock key that this prints; without it an engine that is stopped can't
be started.`,
	}
	cmd.RunE = asking(func(cmd *cobra.Command, client clusterClient, args []string) error {
		if args[0] != "on" && args[0] != "off" {
			return &exitError{2, fmt.Sprintf("orch: autolock is on or off, not %q", args[0])}
		}
		r, err := client.Autolock(cmd.Context(), connect.NewRequest(&api.AutolockRequest{Off: args[0] == "off", Rotate: rotate}))
		if err != nil {
			return err
		}
		if r.Msg.Key == "" {
			fmt.Fprintln(cmd.OutOrStdout(), "Autolock is off.")
			return nil
		}
		fmt.Fprintf(cmd.OutOrStdout(), "Autolock is on. An engine that starts needs this key (`orch cluster unlock`):\n\n  %s\n", r.Msg.Key)
		return nil
	})
	cmd.Flags().BoolVar(&rotate, "rotate", false, "with on: make a new key")
	return cmd
}

func clusterUnlockKey() *cobra.Command {
	return &cobra.Command{Use: "unlock-key", Short: "Print the key that unlocks engines", Args: exactly(), RunE: asking(func(cmd *cobra.Command, client clusterClient, _ []string) error {
		r, err := client.UnlockKey(cmd.Context(), connect.NewRequest(&api.UnlockKeyRequest{}))
		if err != nil {
			return err
		}
		if r.Msg.Key == "" {
			return errors.New("autolock is off: engines start without a key")
		}
		fmt.Fprintln(cmd.OutOrStdout(), r.Msg.Key)
		return nil
	})}
}

func clusterUnlock() *cobra.Command {
	return &cobra.Command{
		Use: "unlock", Short: "Unlock the engine of this host", Args: exactly(),
		Long: `Give the locked engine of this host the cluster's unlock key, from the terminal or
from standard input.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := home()
			if err != nil {
				return err
			}
			s, err := hostStatus(cmd.Context(), dir, func(s *api.HostStatus) bool { return s.State != "starting" })
			if err != nil {
				return err
			}
			if s.State != "locked" {
				return errors.New("the engine of this host isn't locked")
			}
			key, err := readSecretLine(cmd, "Unlock key: ")
			if err != nil {
				return err
			}
			_, host := socketClients(dir)
			if _, err := host.Unlock(cmd.Context(), connect.NewRequest(&api.UnlockRequest{Key: key})); err != nil {
				return err
			}
			s, err = hostStatus(cmd.Context(), dir, func(s *api.HostStatus) bool { return s.State == "running" })
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "Node %s is unlocked.\n", s.Name)
			return nil
		},
	}
}

// readSecretLine asks on the terminal without an echo, else reads a line of
// standard input.
func readSecretLine(cmd *cobra.Command, prompt string) (string, error) {
	if in, ok := cmd.InOrStdin().(*os.File); ok && term.IsTerminal(int(in.Fd())) {
		fmt.Fprint(cmd.ErrOrStderr(), prompt)
		b, err := term.ReadPassword(int(in.Fd()))
		fmt.Fprintln(cmd.ErrOrStderr())
		return strings.TrimSpace(string(b)), err
	}
	b, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), 4096))
	return strings.TrimSpace(string(b)), err
}

package main

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"orch/engine/api"
	"orch/engine/ca"
)

func clusterCommand() *cobra.Command {
	cluster := &cobra.Command{Use: "cluster", Short: "Begin, look at and keep a cluster"}
	caCmd := &cobra.Command{Use: "ca", Short: "The cluster's certificate authority", RunE: group}
	caCmd.AddCommand(clusterRotate())
	cluster.AddCommand(clusterInit(), clusterToken(), clusterLeave(), clusterInfo(), clusterBackup(), clusterRestore(), clusterRecover(),
		caCmd, clusterAutolock(), clusterUnlock(), clusterUnlockKey())
	return cluster
}

// stale tells that an answer may be old.
func stale(h http.Header) {
	if why := h.Get(api.StaleHeader); why != "" {
		fmt.Fprintln(os.Stderr, "orch: "+why+"; this is what the engine knew last")
	}
}

func clusterInfo() *cobra.Command {
	var output string
	cmd := &cobra.Command{Use: "info", Short: "Say how the cluster and its engines are", Args: exactly()}
	cmd.RunE = asking(func(cmd *cobra.Command, client clusterClient, _ []string) error {
		r, err := client.Info(cmd.Context(), connect.NewRequest(&api.InfoRequest{}))
		if err != nil {
			return err
		}
		m := r.Msg
		if output == "json" {
			return printMessage(cmd, m)
		}
		stale(r.Header())
		lock := "off"
		if m.Autolock {
			lock = "on"
		}
		fmt.Fprintf(cmd.OutOrStdout(), "cluster   %s (%s), log entry %d\nCA        %s\nautolock  %s\n\n", m.Cluster.GetName(), m.Cluster.GetId(), m.AppliedIndex, m.Trust, lock)
		t := &table{header: []string{"ENGINE", "STATE", "ADDRESS", "LOG ENTRY", "VERSION", "WHY"}}
		for _, e := range m.Engines {
			name := e.Name
			if e.NodeId == m.NodeId {
				name += " *"
			}
			entry := ""
			if e.Applied > 0 {
				entry = fmt.Sprint(e.Applied)
			}
			t.add(name, e.State, e.Address, entry, e.Version, e.Reason)
		}
		return t.print(cmd, output)
	})
	outputFlag(cmd, &output)
	return cmd
}

func clusterToken() *cobra.Command {
	var rotate, quiet bool
	valid := time.Hour
	cmd := &cobra.Command{
		Use: "token agent|engine", Short: "Make a token that lets hosts join", Args: exactly("a role: agent (or worker), or engine"),
		Long: `Make a join token, and print the command to run on the host. The cluster keeps a
hash of it only, so that it can't be shown again: make another one.`,
	}
	cmd.RunE = asking(func(cmd *cobra.Command, client clusterClient, args []string) error {
		role := args[0]
		switch role {
		case "worker":
			role = string(ca.Agent)
		case "manager":
			role = string(ca.Engine)
		case string(ca.Agent), string(ca.Engine):
		default:
			return &exitError{2, fmt.Sprintf("orch: a token lets in an agent (a worker) or an engine, not %q", role)}
		}
		r, err := client.CreateToken(cmd.Context(), connect.NewRequest(&api.CreateTokenRequest{Role: role, Valid: durationpb.New(valid), Rotate: rotate}))
		if err != nil {
			return err
		}
		if quiet {
			fmt.Fprintln(cmd.OutOrStdout(), r.Msg.Token)
			return nil
		}
		address := "HOST"
		if len(r.Msg.Engines) > 0 {
			address = r.Msg.Engines[0].Address
		}
		fmt.Fprintf(cmd.OutOrStdout(), "Run this on the host, until %s:\n\n  orch join --token %s %s\n", r.Msg.ExpiresAt.AsTime().Local().Format("15:04 on 2 Jan"), r.Msg.Token, address)
		if strings.HasPrefix(address, "127.") {
			fmt.Fprintf(cmd.ErrOrStderr(), "orch: the engine only listens on %s: hosts other than this one can't reach it; a cluster for several hosts begins with `orch cluster init`\n", address)
		}
		return nil
	})
	cmd.Flags().BoolVar(&rotate, "rotate", false, "make all older tokens of the role void")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "print the token alone")
	cmd.Flags().DurationVar(&valid, "valid", valid, "how `long` it lets hosts in")
	return cmd
}

func clusterLeave() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "leave", Short: "Take this host out of its cluster", Args: exactly(),
		Long: `Stop this host's tasks, take it out of its cluster and forget that. The other
nodes replace its tasks: ` + "`orch node drain --wait`" + ` first does that without a gap.
What would cost the engines their majority is refused.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return leave(cmd, force) },
	}
	cmd.Flags().BoolVar(&force, "force", false, "though the cluster doesn't agree, or can't be reached")
	return cmd
}

func clusterRotate() *cobra.Command {
	var detach bool
	cmd := &cobra.Command{
		Use: "rotate", Short: "Replace the CA, and every certificate, without a gap", Args: exactly(),
		Long: `Replace the cluster's CA: every node learns to trust the new one, then gets a
certificate of it, then the old one is dropped. Nodes that are down meanwhile
come back by themselves. Join tokens become void; contexts renew themselves.`,
	}
	cmd.RunE = asking(func(cmd *cobra.Command, client clusterClient, _ []string) error {
		if _, err := client.RotateCA(cmd.Context(), connect.NewRequest(&api.RotateCARequest{})); err != nil {
			return err
		}
		if detach {
			return nil
		}
		said := ""
		err := until(cmd.Context(), 100*time.Millisecond, func() bool {
			r, err := client.Info(cmd.Context(), connect.NewRequest(&api.InfoRequest{}))
			if err != nil {
				return false
			}
			if r.Msg.Trust != said && r.Msg.Trust != "stable" {
				said = r.Msg.Trust
				fmt.Fprintln(cmd.OutOrStdout(), said)
			}
			return r.Msg.Trust == "stable"
		})
		if err == nil {
			fmt.Fprintln(cmd.OutOrStdout(), "The CA is replaced.")
		}
		return err
	})
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "don't wait; `orch cluster info` tells how far it is")
	return cmd
}

package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"golang.org/x/term"
	"google.golang.org/protobuf/types/known/durationpb"

	"orch/engine"
	"orch/engine/api"
	"orch/engine/ca"
	"orch/engine/folder"
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
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		said := ""
		for {
			r, err := client.Info(cmd.Context(), connect.NewRequest(&api.InfoRequest{}))
			switch {
			case err != nil && cmd.Context().Err() != nil:
				return cmd.Context().Err()
			case err == nil && r.Msg.Trust == "stable":
				fmt.Fprintln(cmd.OutOrStdout(), "The CA is replaced.")
				return nil
			case err == nil && r.Msg.Trust != said:
				said = r.Msg.Trust
				fmt.Fprintln(cmd.OutOrStdout(), said)
			}
			select {
			case <-cmd.Context().Done():
				return cmd.Context().Err()
			case <-tick.C:
			}
		}
	})
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "don't wait; `orch cluster info` tells how far it is")
	return cmd
}

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

func clusterBackup() *cobra.Command {
	return &cobra.Command{
		Use: "backup FILE", Short: "Write all that the cluster is made of into a file", Args: exactly("a file; - for standard output"),
		Long: `Write the cluster's state, with its CA, its secrets and the key to them, into a
file that only you may read. ` + "`orch cluster restore`" + ` makes the cluster from it.
Volumes and images are not in it.`,
		RunE: asking(func(cmd *cobra.Command, client clusterClient, args []string) error {
			stream, err := client.Backup(cmd.Context(), connect.NewRequest(&api.BackupRequest{}))
			if err != nil {
				return err
			}
			defer stream.Close()
			to := os.Stdout
			if args[0] != "-" {
				if to, err = os.OpenFile(args[0]+".part", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600); err != nil {
					return fmt.Errorf("cannot write the backup: %w", err)
				}
				defer os.Remove(args[0] + ".part") // gone when all went well
				defer to.Close()
			}
			size := 0
			for stream.Receive() {
				n, err := to.Write(stream.Msg().Data)
				if size += n; err != nil {
					return fmt.Errorf("cannot write the backup: %w", err)
				}
			}
			if err := stream.Err(); err != nil || args[0] == "-" {
				return err
			}
			if err := errors.Join(to.Sync(), os.Rename(args[0]+".part", args[0])); err != nil {
				return fmt.Errorf("cannot write the backup: %w", err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "Wrote %s (%d KiB). It holds the cluster's secrets and its CA: keep it safe.\n", args[0], size>>10)
			return nil
		}),
	}
}

func clusterRestore() *cobra.Command {
	o := &hostOptions{}
	cmd := &cobra.Command{
		Use: "restore FILE", Short: "Make a cluster again from a backup, with this host as its engine", Args: exactly("a file that `orch cluster backup` wrote"),
		Long: `Make the cluster of a backup again, with this host as its only engine. Workers
that reach it at an address they knew before come back by themselves, with their
tasks; other engines leave (` + "`orch cluster leave --force`" + `) and join again.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			file, err := os.Open(args[0])
			if err != nil {
				return fmt.Errorf("cannot read the backup: %w", err)
			}
			defer file.Close()
			if err := o.settle(""); err != nil {
				return err
			}
			err = o.begin(cmd, func(f *folder.Folder) error { return engine.Restore(f, file, o.name, o.advertise) })
			if err != nil || o.foreground {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "The cluster of %s runs again, with node %q at %s as its engine.\n", args[0], o.name, o.advertise)
			return nil
		},
	}
	o.flags(cmd)
	return cmd
}

func clusterRecover() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "recover", Short: "Go on with this engine alone, when the others are lost", Args: exactly(),
		Long: `When a majority of the engines is lost for good, make this host's engine the only
one of the cluster: nothing else can make changes again. All that this engine
knows is kept; the newest changes, if only lost engines had them, are gone. The
other engines are removed: each leaves (` + "`orch cluster leave --force`" + ` on its host)
and joins again. Refused while a majority answers.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := home()
			if err != nil {
				return err
			}
			return recoverCluster(cmd, dir, yes)
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "don't ask")
	return cmd
}

// recoverCluster stops this host's daemon, recovers its log and starts it.
func recoverCluster(cmd *cobra.Command, dir string, yes bool) error {
	if m := memberOf(dir); m == nil || m.Role != string(ca.Engine) {
		return errors.New("this host has no engine to recover the cluster from")
	}
	if !free(dir) {
		client, s, err := connectLocal(cmd.Context())
		if err != nil {
			return err
		}
		if r, err := client.Info(cmd.Context(), connect.NewRequest(&api.InfoRequest{})); err == nil && r.Header().Get(api.StaleHeader) == "" {
			return errors.New("the cluster has a leader, and with it a majority of its engines: there is nothing to recover; `orch node rm` removes engines that are lost")
		}
		if err := sure(cmd, yes, "Make this engine the only one of the cluster?"); err != nil {
			return err
		}
		if err := stopDaemon(cmd.Context(), int(s.Pid)); err != nil {
			return err
		}
	} else if err := sure(cmd, yes, "Make this engine the only one of the cluster?"); err != nil {
		return err
	}
	f, err := folder.Open(dir)
	if err != nil {
		return err
	}
	err = engine.Recover(f, newLogger(os.Stderr))
	f.Close()
	if err != nil {
		return err
	}
	s, err := startDaemon(cmd.Context(), dir, "agent")
	if err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "Node %s leads cluster %q as its only engine.\n", s.Name, s.ClusterName)
	return nil
}

// sure asks before something that can't be undone.
func sure(cmd *cobra.Command, yes bool, question string) error {
	if yes {
		return nil
	}
	in, ok := cmd.InOrStdin().(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return &exitError{2, "orch: " + question + " --yes says so where there is no terminal to ask on"}
	}
	fmt.Fprint(cmd.ErrOrStderr(), question+" [y/N] ")
	answer := ""
	_, _ = fmt.Fscanln(in, &answer) // nothing is a no
	if answer != "y" && answer != "yes" {
		return &exitError{1, "Nothing was changed."}
	}
	return nil
}

package main

import (
	"errors"
	"fmt"
	"os"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"orch/engine"
	"orch/engine/api"
	"orch/engine/ca"
	"orch/engine/folder"
)

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

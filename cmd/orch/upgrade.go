package main

import (
	"github.com/spf13/cobra"

	"orch/engine/bootstrap"
)

func upgradeCommand() *cobra.Command {
	f := &bootstrapFlags{}
	cmd := &cobra.Command{
		Use:   "upgrade HOSTS.TXT",
		Short: "Bring a cluster's hosts to this binary's version, without losing a task",
		Long: `Upload this binary to the hosts of a running cluster (see orch bootstrap) and
restart orch on them: agents in batches, then engines one by one, the leader
last. Tasks keep running. Each host must be up again, an engine with all of the
log, before the next one begins; the first that fails ends it. It doesn't begin
unless every engine is there.`,
		Args: exactly("an inventory, a file of hosts"),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := f.prepare(cmd, args[0])
			if err != nil {
				return err
			}
			r, err := bootstrap.Upgrade(cmd.Context(), f.Options)
			p.stop()
			if r == nil {
				return err
			}
			if f.DryRun {
				p.plans(r.Plans)
			}
			if err == nil {
				p.summary(r, false, f.DryRun)
			}
			return err
		},
	}
	f.flags(cmd)
	return cmd
}

// Command orch is all of orch in one binary: the CLI, the engine and the
// agent. It parses, builds, runs and exits; what it runs lives in the
// packages beside it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"orch/agent/carrier"
	"orch/agent/mesh"
	"orch/agent/process"
	"orch/cmd/internal/daemon"
	"orch/playbooks"
)

// version is set by the build.
var version = "dev"

func main() {
	// The four below are orch's own children; they must not pay for the rest.
	if playbooks.IsChild(os.Args) {
		playbooks.ChildMain()
		return
	}
	if mesh.IsMesh(os.Args) {
		mesh.Main()
	}
	if carrier.Is(os.Args) {
		daemon.CarrierMain()
	}
	if process.IsShim(os.Args) {
		process.ShimMain()
		return
	}
	if len(os.Args) > 1 && os.Args[1] == "eval" {
		debug.SetGCPercent(800) // it ends soon: time counts, not memory
	}
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	ctx, stop := interruptible()
	defer stop()
	root := newRoot()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var exit *exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		if exit.text != "" {
			fmt.Fprintln(os.Stderr, exit.text)
		}
		return exit.code
	}
	fmt.Fprintln(os.Stderr, "orch: "+explain(err))
	if strings.HasPrefix(err.Error(), "unknown command") {
		fmt.Fprintln(os.Stderr, "See `orch --help`.")
		return 2
	}
	return 1
}

// interruptible is a context that ends with the first SIGINT or SIGTERM; the
// second one ends the process.
func interruptible() (context.Context, func()) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		if _, ok := <-signals; !ok {
			return
		}
		cancel()
		if _, ok := <-signals; ok {
			fmt.Fprintln(os.Stderr, "interrupted twice: leaving at once; tasks may still run (`orch down` stops them)")
			os.Exit(130)
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		cancel()
	}
}

// exitError ends the program with a code of its own.
type exitError struct {
	code int
	text string
}

func (e *exitError) Error() string { return e.text }

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "orch",
		Short: "orch runs services from Starlark playbooks",
		Long: `orch runs services from Starlark playbooks.

A playbook declares a stack: services, jobs, networks, volumes, secrets and
configs, and how to roll out a change. orch evaluates it into a specification,
keeps that in a replicated log, runs the tasks on Docker or as plain processes,
and closes the gap between what is wanted and what runs for ever.

Begin with:
  orch run playbooks/tick.star      start a cluster on this machine and deploy
  orch ps                           see the tasks, and why one waits
  orch logs -f tick                 follow the output of all of a stack
  orch plan playbooks/tick.star     see what a change would do
  orch stack rollback tick          go back to the release before
  orch doc service                  read about a builtin of the language

For several hosts:
  orch bootstrap hosts.txt          make hosts that answer by SSH into a cluster
  orch cluster init; orch join      the same by hand
  orch node drain n1 --wait         empty a host, without a gap

Words: a stack is what one playbook declares; each deployment of it is a
numbered release. A service has slots (replicas); each attempt to run one is a
task, "tick/influxdb.1#3".

Files: $ORCH_HOME (default ~/.local/state/orch) holds this machine's part of a
cluster; $ORCH_CONFIG (default ~/.config/orch) the contexts by which others are
reached.
Exit codes: 0 done; 1 it failed, or did not converge, with the reasons; 2 the
playbook or the command line is wrong; 3 (orch plan) there are changes.`,
		SilenceUsage: true, SilenceErrors: true, Version: version,
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &exitError{2, "orch: " + err.Error() + "\nSee `" + cmd.CommandPath() + " --help`."}
	})
	root.AddGroup(
		&cobra.Group{ID: "run", Title: "Deploy:"}, &cobra.Group{ID: "see", Title: "Look and change:"},
		&cobra.Group{ID: "lang", Title: "The language:"}, &cobra.Group{ID: "cluster", Title: "The cluster:"})
	in := func(group string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	in("run", runCommand(), planCommand(), downCommand())
	in("see", psCommand(), logsCommand(), eventsCommand(), stackCommand(), serviceCommand(), secretCommand(), rolloutCommand(), networkCommand())
	in("lang", evalCommand(), paramsCommand(), docCommand(), fmtCommand(), lintCommand(), testCommand())
	in("cluster", clusterCommand(), joinCommand(), nodeCommand(), rebalanceCommand(), operatorCommand(), contextCommand(), bootstrapCommand(), upgradeCommand(), engineCommand(), agentCommand())
	root.AddCommand(hostCommand())
	root.PersistentFlags().StringVar(&contextFlag, "context", "", "`name` of the context to use, or ssh://[user@]host (default $ORCH_CONTEXT, then `orch context use`)")
	root.AddCommand(versionCommand())
	for _, c := range root.Commands() {
		if c.HasSubCommands() {
			c.RunE = group
		}
	}
	return root
}

// group is a command that only has others: alone it shows its help.
func group(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	return &exitError{2, fmt.Sprintf("orch: `%s` has no command %q\nSee `%s --help`.", cmd.CommandPath(), args[0], cmd.CommandPath())}
}

// exactly is cobra.ExactArgs with words that say which arguments.
func exactly(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return &exitError{2, fmt.Sprintf("orch: `%s` needs %s\nUsage: %s", cmd.CommandPath(), names[len(args)], cmd.UseLine())}
		case len(args) > len(names):
			return &exitError{2, fmt.Sprintf("orch: `%s` has no use for %q\nUsage: %s", cmd.CommandPath(), args[len(names)], cmd.UseLine())}
		}
		return nil
	}
}

// upTo is cobra.MaximumNArgs with words.
func upTo(most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > most {
			return exactly(args[:most]...)(cmd, args)
		}
		return nil
	}
}

// some is cobra.MinimumNArgs(1) with words.
func some(name string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return exactly(name)(cmd, args)
		}
		return nil
	}
}

func versionCommand() *cobra.Command {
	return &cobra.Command{Use: "version", Short: "Print the version", Args: exactly(), Run: func(cmd *cobra.Command, _ []string) {
		fmt.Fprintln(cmd.OutOrStdout(), "orch "+version)
	}}
}

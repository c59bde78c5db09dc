package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"orch/cmd/internal/daemon"
)

func contextCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "context", Short: "Choose the cluster that commands are for",
		Long: `A context is how you reach a cluster: its engines' addresses and a certificate of
yours, or ssh to one of its engines' hosts. ` + "`orch bootstrap`" + ` saves one; an admin
makes one for somebody else with ` + "`orch operator add`" + `. Every command takes
--context NAME, or $ORCH_CONTEXT; ssh://[user@]host works as a name, too. The
context "local" is the cluster of this machine.`,
	}
	cmd.AddCommand(contextLs(), contextUse(), contextAdd(), contextImport(), contextRm())
	return cmd
}

func contextNames() ([]string, error) {
	dir, err := configDir()
	if err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(dir, "contexts", "*.json"))
	if err != nil {
		return nil, err
	}
	names := []string{localContext}
	for _, f := range files {
		names = append(names, strings.TrimSuffix(filepath.Base(f), ".json"))
	}
	return names, nil
}

func contextLs() *cobra.Command {
	return &cobra.Command{Use: "ls", Short: "List contexts; * marks the one in use", Args: exactly(), RunE: func(cmd *cobra.Command, _ []string) error {
		names, err := contextNames()
		if err != nil {
			return err
		}
		current, err := currentContext()
		if err != nil {
			return err
		}
		if current == "" {
			current = localContext
		}
		t := &table{header: []string{"", "NAME", "CLUSTER", "ROLE", "REACHED BY"}}
		for _, name := range names {
			mark, cluster, role, by := "", "", "admin", "this machine"
			if name == current {
				mark = "*"
			}
			if name != localContext {
				c, err := readContext(name)
				if err != nil {
					return err
				}
				if by = c.SSH; by == "" {
					creds, err := c.credentials()
					if err != nil {
						return fmt.Errorf("context %q is damaged: %w", name, err)
					}
					cluster, role, by = creds.ClusterName, creds.Role, daemon.Names(creds.Engines)
				}
			}
			t.add(mark, name, cluster, role, by)
		}
		return t.print(cmd, "table")
	}}
}

func contextUse() *cobra.Command {
	return &cobra.Command{Use: "use NAME", Short: "Use a context from now on", Args: exactly("a context's name"), RunE: func(_ *cobra.Command, args []string) error {
		if args[0] != localContext {
			if _, err := readContext(args[0]); err != nil {
				return err
			}
		}
		return useContext(args[0])
	}}
}

func contextAdd() *cobra.Command {
	return &cobra.Command{
		Use: "add NAME ssh://[USER@]HOST[:PORT]", Short: "Add a context that reaches an engine's host by ssh",
		Args: exactly("a name", "where to reach it: ssh://[user@]host[:port]"),
		RunE: func(_ *cobra.Command, args []string) error {
			if !strings.HasPrefix(args[1], "ssh://") {
				return &exitError{2, fmt.Sprintf("orch: %q: want ssh://[user@]host[:port]; a file of `orch operator add` is taken by `orch context import`", args[1])}
			}
			return writeContext(args[0], &savedContext{SSH: args[1]})
		},
	}
}

func contextImport() *cobra.Command {
	return &cobra.Command{
		Use: "import NAME FILE", Short: "Add the context that an admin made with `orch operator add`", Args: exactly("a name", "a file"),
		RunE: func(_ *cobra.Command, args []string) error {
			b, err := os.ReadFile(args[1])
			if err != nil {
				return fmt.Errorf("cannot read the context: %w", err)
			}
			c := &savedContext{}
			if err := json.Unmarshal(b, c); err != nil || c.Key == "" {
				return fmt.Errorf("%s is no context: it should be what `orch operator add` wrote", args[1])
			}
			if _, err := c.credentials(); err != nil {
				return fmt.Errorf("%s is damaged: %w", args[1], err)
			}
			return writeContext(args[0], c)
		},
	}
}

func contextRm() *cobra.Command {
	return &cobra.Command{Use: "rm NAME", Short: "Forget a context", Args: exactly("a context's name"), RunE: func(_ *cobra.Command, args []string) error {
		names, err := contextNames()
		if err != nil {
			return err
		}
		if args[0] == localContext || !slices.Contains(names, args[0]) {
			return fmt.Errorf("there is no context %q to forget", args[0])
		}
		path, err := contextPath(args[0])
		if err != nil {
			return err
		}
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("cannot forget context %q: %w", args[0], err)
		}
		if current, err := currentContext(); err == nil && current == args[0] && contextFlag == "" && os.Getenv("ORCH_CONTEXT") == "" {
			return useContext(localContext)
		}
		return nil
	}}
}

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"orch/builtins"
	"orch/playbooks"
	"orch/playbooks/playtest"
)

func evalCommand() *cobra.Command {
	in := &inputs{}
	var output string
	cmd := &cobra.Command{
		Use: "eval PLAYBOOK", Short: "Print the specification that a playbook declares",
		Long: `Evaluate a playbook here, without a cluster, and print its specification as JSON.
The same bundle and parameters give the same specification on any machine.`,
		Args: exactly("a playbook"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := in.evaluate(cmd, args[0])
			if err != nil {
				return err
			}
			return printSpec(cmd.OutOrStdout(), r.Spec)
		},
	}
	in.flags(cmd)
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text, or json: mistakes come as JSON too")
	return cmd
}

// printJSON writes JSON indented, always in the same way.
func printJSON(cmd *cobra.Command, b []byte) error {
	var out bytes.Buffer
	if err := json.Indent(&out, b, "", "  "); err != nil {
		return err
	}
	out.WriteByte('\n')
	_, err := out.WriteTo(cmd.OutOrStdout())
	return err
}

func paramsCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "params PLAYBOOK", Short: "List a playbook's parameters without evaluating it", Args: exactly("a playbook"),
		RunE: func(cmd *cobra.Command, args []string) error {
			params, err := playbooks.Params(args[0])
			if err != nil {
				return mistake(err)
			}
			if output == "json" {
				b, err := json.Marshal(params)
				if err != nil {
					return err
				}
				return printJSON(cmd, b)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "NAME\tTYPE\tDEFAULT\tWHAT")
			for _, p := range params {
				value := p.Default
				if p.Required {
					value = "(required)"
				}
				doc := p.Doc
				if p.Choices != "" {
					doc = strings.TrimSpace(doc + " " + p.Choices)
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", p.Name, p.Type, value, doc)
			}
			return w.Flush()
		},
	}
	outputFlag(cmd, &output)
	return cmd
}

// mistake gives what is wrong with a playbook its exit code.
func mistake(err error) error {
	var m *playbooks.Error
	if errors.As(err, &m) {
		return &exitError{2, m.Error()}
	}
	return &exitError{2, "orch: " + err.Error()}
}

func docCommand() *cobra.Command {
	var stubs bool
	cmd := &cobra.Command{
		Use: "doc [BUILTIN]", Short: "Read about the language's builtins",
		Example: "  orch doc\n  orch doc service\n  orch doc health.http\n  orch doc t.simulate\n  orch doc --stubs > orch.pyi",
		Args:    upTo(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if stubs {
				fmt.Fprint(cmd.OutOrStdout(), playbooks.Stubs())
				return nil
			}
			text, err := manual(strings.Join(args, ""))
			if err != nil {
				return mistake(err)
			}
			fmt.Fprint(cmd.OutOrStdout(), text)
			return nil
		},
	}
	cmd.Flags().BoolVar(&stubs, "stubs", false, "print a Python stub file for editors")
	return cmd
}

// manual is what `orch doc NAME` prints: of the builtins, and of t, what tests
// of playbooks work with.
func manual(name string) (string, error) {
	if text, ok := playtest.Doc(name); ok {
		return text, nil
	}
	text, err := playbooks.Doc(name)
	switch hint := builtins.Suggest(name, playtest.Names()); {
	case err != nil && hint != "" && strings.HasPrefix(name, "t."):
		return "", fmt.Errorf("t has no %q; %s", strings.TrimPrefix(name, "t."), hint)
	case err == nil && name == "":
		text += "Tests of playbooks work with t: `orch doc t`.\n"
	}
	return text, err
}

func fmtCommand() *cobra.Command {
	var check bool
	cmd := &cobra.Command{
		Use: "fmt PATH...", Short: "Format playbooks in place",
		Args: some("a path"),
		RunE: func(cmd *cobra.Command, args []string) error {
			files, err := playbooks.Files(args, ".star")
			if err != nil {
				return mistake(err)
			}
			unformatted := 0
			for _, path := range files {
				src, err := os.ReadFile(path)
				if err != nil {
					return mistake(err)
				}
				out, err := playbooks.Format(path, src)
				if err != nil {
					return mistake(err)
				}
				if bytes.Equal(src, out) {
					continue
				}
				unformatted++
				fmt.Fprintln(cmd.OutOrStdout(), path)
				if !check {
					if err := os.WriteFile(path, out, 0o644); err != nil {
						return err
					}
				}
			}
			if check && unformatted > 0 {
				return &exitError{code: 1}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&check, "check", false, "only list what isn't formatted; exit 1 if anything is")
	return cmd
}

func lintCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "lint PATH...", Short: "Find what is suspicious in playbooks", Args: some("a path"),
		Long: `Read playbooks without evaluating them and say what is suspicious. Exit code 1 if
anything is. A comment "# lint: ignore RULE" at the end of a line silences a rule.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			files, err := playbooks.Files(args, ".star")
			if err != nil {
				return mistake(err)
			}
			all := []playbooks.Diagnostic{}
			for _, path := range files {
				found, err := playbooks.Lint(path)
				if err != nil {
					return mistake(err)
				}
				all = append(all, found...)
			}
			if output == "json" {
				b, err := json.Marshal(all)
				if err != nil {
					return err
				}
				if err := printJSON(cmd, b); err != nil {
					return err
				}
			} else {
				for _, d := range all {
					fmt.Fprintln(cmd.OutOrStdout(), d.String())
				}
			}
			if len(all) > 0 {
				return &exitError{code: 1}
			}
			return nil
		},
	}
	outputFlag(cmd, &output)
	return cmd
}

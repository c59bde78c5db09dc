package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"orch/playbooks"
	"orch/playbooks/playtest"
)

func testCommand() *cobra.Command {
	var match, output string
	var verbose, cover bool
	var coverMin float64
	cmd := &cobra.Command{
		Use: "test [PATH...]", Short: "Run the tests of playbooks (*_test.star)",
		Long: `Run the functions test_*(t) of the files *_test.star named, or below the folders
named (default: here). t.plan(path, params = {}) evaluates a playbook,
t.simulate(path, ...) plays its release through on a simulated cluster, with
failures wherever you like, in milliseconds; t.eq, ne, true, contains and fails
check. "orch doc t" tells more. Exit code 1 if a test fails.

With --cover it says which lines of strategies no simulation reached: of the
functions that rollout(strategy = ...) names and those that they call, in your
files and in the library.`,
		Example: `  orch test
  orch test playbooks/ --run canary -v
  orch test --cover-min 80`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				args = []string{"."}
			}
			o := playtest.Options{}
			if match != "" {
				re, err := regexp.Compile(match)
				if err != nil {
					return &exitError{2, "orch: --run: " + err.Error()}
				}
				o.Match = re.MatchString
			}
			if coverMin < 0 || coverMin > 100 {
				return &exitError{2, "orch: --cover-min is a percentage, 0 to 100"}
			}
			if cover || coverMin > 0 {
				o.Cover = &playbooks.Coverage{}
			}
			passed, failed := 0, 0
			err := playtest.Run(cmd.Context(), args, o, func(r playtest.Result) {
				if r.OK() {
					passed++
				} else {
					failed++
				}
				showTest(cmd, r, output, verbose)
			})
			if err != nil {
				return mistake(err)
			}
			if output != "json" {
				fmt.Fprintf(cmd.OutOrStdout(), "%d passed, %d failed\n", passed, failed)
			}
			least := ""
			if o.Cover != nil {
				least = showCover(cmd, o.Cover.Files(), output, coverMin)
			}
			if match != "" && passed+failed == 0 {
				return &exitError{1, fmt.Sprintf("orch: no test's name matches --run %q", match)}
			}
			if failed > 0 || least != "" {
				return &exitError{1, least}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&match, "run", "", "only tests whose name matches this regular `expression`")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "show passing tests and what tests print")
	cmd.Flags().BoolVar(&cover, "cover", false, "show which lines of strategies no simulation reached")
	cmd.Flags().Float64Var(&coverMin, "cover-min", 0, "the same, and exit code 1 if fewer than this `percentage` of the lines were reached")
	outputFlag(cmd, &output)
	return cmd
}

func showTest(cmd *cobra.Command, r playtest.Result, output string, verbose bool) {
	out := cmd.OutOrStdout()
	if output == "json" {
		b, _ := json.Marshal(r)
		fmt.Fprintln(out, string(b))
		return
	}
	if verbose || !r.OK() {
		word := "ok  "
		if !r.OK() {
			word = "FAIL"
		}
		fmt.Fprintf(out, "%s %s %s (%.3fs)\n", word, r.File, r.Test, r.Elapsed.Seconds())
		for _, line := range r.Output {
			fmt.Fprintln(out, "    "+line)
		}
	}
	if !r.OK() {
		fmt.Fprintln(out, r.Err)
	}
}

// showCover shows which lines of strategies no test reached, and says whether
// they are too many.
func showCover(cmd *cobra.Command, files []playbooks.CoveredFile, output string, least float64) (tooFew string) {
	out := cmd.OutOrStdout()
	percent := playbooks.Percent(files)
	for i := range files {
		files[i].File = fromHere(files[i].File)
	}
	switch {
	case output == "json":
		type cover struct {
			Percent float64                 `json:"percent"`
			Files   []playbooks.CoveredFile `json:"files"`
		}
		b, _ := json.Marshal(struct {
			Cover cover `json:"cover"`
		}{cover{percent, files}})
		fmt.Fprintln(out, string(b))
	case len(files) == 0:
		fmt.Fprintln(out, "no simulation came to a strategy")
	}
	for _, f := range files {
		if output != "json" {
			fmt.Fprint(out, coverText(f))
		}
	}
	if percent < least {
		return fmt.Sprintf("orch: the tests reach %.1f%% of the lines of strategies, less than %v%%", percent, least)
	}
	return ""
}

func coverText(f playbooks.CoveredFile) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d of %d lines, %.0f%%", f.File, f.Reached, f.Lines, f.Percent)
	for i, m := range f.Missed {
		b.WriteString([]string{"; not reached: ", ", "}[min(i, 1)] + strconv.Itoa(m.From))
		if m.To > m.From {
			b.WriteString("-" + strconv.Itoa(m.To))
		}
	}
	b.WriteString("\n")
	for _, m := range f.Missed {
		for i, line := range m.Text {
			fmt.Fprintf(&b, "%6d  %s\n", m.From+i, line)
		}
	}
	return b.String()
}

// fromHere is a path as seen from the working directory, where it is below.
func fromHere(path string) string {
	here, err := os.Getwd()
	if err != nil || !filepath.IsAbs(path) {
		return path
	}
	if rel, err := filepath.Rel(here, path); err == nil && filepath.IsLocal(rel) {
		return filepath.ToSlash(rel)
	}
	return path
}

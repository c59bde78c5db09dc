package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// outputFlag adds -o to a command that lists.
func outputFlag(cmd *cobra.Command, output *string) {
	cmd.Flags().StringVarP(output, "output", "o", "table", "table, wide or json")
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !slices.Contains([]string{"table", "wide", "json"}, *output) {
			return &exitError{2, fmt.Sprintf("orch: -o %s: want table, wide or json", *output)}
		}
		return run(cmd, args)
	}
}

// table prints rows under a header; columns from `wide` on only when asked.
type table struct {
	header []string
	wide   int // first column that is only for wide; 0: none
	rows   [][]string
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) print(cmd *cobra.Command, output string) error {
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{t.header}, t.rows...) {
		if t.wide > 0 && output != "wide" {
			row = row[:t.wide]
		}
		for i, cell := range row {
			if i > 0 {
				fmt.Fprint(w, "\t")
			}
			fmt.Fprint(w, cell)
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}

// printMessages prints messages as a JSON array.
func printMessages[T proto.Message](cmd *cobra.Command, all []T) error {
	list := make([]json.RawMessage, 0, len(all))
	for _, m := range all {
		b, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
		if err != nil {
			return err
		}
		list = append(list, b)
	}
	b, err := json.Marshal(list)
	if err != nil {
		return err
	}
	return printJSON(cmd, b)
}

// ago is how long something has been so: "5s", "3m", "2h", "4d".
func ago(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	d := max(time.Since(t.AsTime()), 0)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

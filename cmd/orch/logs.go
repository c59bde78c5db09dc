package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"orch/engine/api"
)

type logOptions struct {
	follow, times, bare bool
	tail                int32
	since               time.Duration
}

func (o *logOptions) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&o.follow, "follow", "f", false, "go on with what comes, also from tasks that come")
	cmd.Flags().BoolVarP(&o.times, "timestamps", "t", false, "put the time before each line")
	cmd.Flags().BoolVar(&o.bare, "no-prefix", false, "don't put the task before each line")
	cmd.Flags().Int32VarP(&o.tail, "tail", "n", -1, "newest `lines` of each task to begin with; -1: all")
	cmd.Flags().DurationVar(&o.since, "since", 0, "only lines of the last `time`, such as 10m")
}

func logsCommand() *cobra.Command {
	o := &logOptions{}
	cmd := &cobra.Command{
		Use: "logs STACK[/SERVICE] | TASK", Short: "Print the output of a stack, a service or a task",
		Example: "  orch logs -f tick\n  orch logs tick/influxdb --tail 20\n  orch logs 'tick/influxdb.1#3'",
		Args:    exactly("a stack, a service or a task"),
		RunE:    func(cmd *cobra.Command, args []string) error { return o.print(cmd, args[0]) },
	}
	o.flags(cmd)
	return cmd
}

func (o *logOptions) print(cmd *cobra.Command, what string) error {
	client, err := connectCluster(cmd.Context())
	if err != nil {
		return err
	}
	ask := &api.LogsRequest{Follow: o.follow, Tail: o.tail}
	ask.Stack, ask.Service, _ = strings.Cut(what, "/")
	if strings.Contains(what, "#") {
		ask.Task = what
	}
	if o.since > 0 {
		ask.Since = timestamppb.New(time.Now().Add(-o.since))
	}
	stream, err := client.Logs(cmd.Context(), connect.NewRequest(ask))
	if err != nil {
		return err
	}
	defer stream.Close()
	for stream.Receive() {
		m := stream.Msg()
		if m.Error != "" {
			fmt.Fprintln(cmd.ErrOrStderr(), "orch: "+m.Error)
		}
		for _, l := range m.Lines {
			out := cmd.OutOrStdout()
			if l.Stream == "stderr" {
				out = cmd.ErrOrStderr()
			}
			o.line(out, l)
		}
	}
	if cmd.Context().Err() != nil {
		return nil
	}
	return stream.Err()
}

func (o *logOptions) line(out io.Writer, l *api.LogLine) {
	prefix := ""
	if o.times {
		prefix = l.Time.AsTime().Local().Format("2006-01-02T15:04:05.000Z07:00") + " "
	}
	if !o.bare {
		prefix += l.TaskId + " | "
	}
	fmt.Fprintf(out, "%s%s\n", prefix, l.Text)
}

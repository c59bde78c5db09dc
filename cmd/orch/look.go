package main

import (
	"fmt"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"orch/engine/api"
)

func psCommand() *cobra.Command {
	var output, node string
	var all bool
	cmd := &cobra.Command{
		Use: "ps [STACK]", Short: "List tasks, and why one isn't running", Args: upTo(1),
		Long: `List the tasks of all stacks or of one. WHY tells what a task that isn't ready
waits for, and for how long; -o wide adds until when, and its place.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return listTasks(cmd, &api.ListTasksRequest{Stack: strings.Join(args, ""), Node: node, All: all}, output)
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "ended tasks too (the newest 5 of each slot are kept)")
	cmd.Flags().StringVar(&node, "node", "", "only those on this `node`")
	outputFlag(cmd, &output)
	return cmd
}

func listTasks(cmd *cobra.Command, ask *api.ListTasksRequest, output string) error {
	client, err := connectCluster(cmd.Context())
	if err != nil {
		return err
	}
	r, err := client.ListTasks(cmd.Context(), connect.NewRequest(ask))
	if err != nil {
		return err
	}
	tasks := r.Msg.Tasks
	slices.SortStableFunc(tasks, func(a, b *api.Task) int { return compareIDs(a.Id, b.Id) })
	if output == "json" {
		return printMessages(cmd, tasks)
	}
	t := table{header: []string{"TASK", "STATE", "READY", "NODE", "FOR", "WHY", "UNTIL", "VERSION", "ADDRESS", "RUNTIME ID"}, wide: 6}
	for _, task := range tasks {
		s := task.Status
		since := s.GetStateSince()
		if task.Wait != nil && task.Wait.Since != nil {
			since = task.Wait.Since
		}
		until := ""
		if d := task.Wait.GetDeadline(); d != nil {
			until = d.AsTime().Local().Format("15:04:05")
		}
		t.add(task.Id, stateName(s.GetState()), map[bool]string{true: "yes", false: "no"}[s.GetReady()], r.Msg.NodeNames[task.NodeId],
			ago(since), reason(task), until, task.Version, s.GetAddress(), shorten(s.GetRuntimeId()))
	}
	return t.print(cmd, output)
}

// compareIDs orders "web.2" before "web.10".
func compareIDs(a, b string) int {
	for a != "" && b != "" {
		da, db := digits(a), digits(b)
		if da > 0 && db > 0 {
			x, y := strings.TrimLeft(a[:da], "0"), strings.TrimLeft(b[:db], "0")
			if len(x) != len(y) {
				return len(x) - len(y)
			}
			if c := strings.Compare(x, y); c != 0 {
				return c
			}
			a, b = a[da:], b[db:]
			continue
		}
		if a[0] != b[0] {
			return int(a[0]) - int(b[0])
		}
		a, b = a[1:], b[1:]
	}
	return len(a) - len(b)
}

func digits(s string) int {
	n := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	return n
}

func shorten(id string) string {
	if len(id) > 12 {
		return id[:12]
	}
	return id
}

func stateName(s api.TaskState) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "TASK_STATE_"))
}

// reason is the wait's, else what the agent said last.
func reason(t *api.Task) string {
	switch {
	case t.Status.GetReady():
		return ""
	case t.Wait != nil:
		return t.Wait.Reason
	case t.Status.GetMessage() != "":
		return t.Status.Message
	}
	return t.StopReason
}

func eventsCommand() *cobra.Command {
	var output string
	var follow bool
	cmd := &cobra.Command{
		Use: "events [STACK]", Short: "See what happened, and what happens", Args: upTo(1),
		Long: `Print the newest events of the cluster (4096 are remembered since the engine
began), then, with -f, those that come.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := connectCluster(cmd.Context())
			if err != nil {
				return err
			}
			stream, err := client.Events(cmd.Context(), connect.NewRequest(&api.EventsRequest{Stack: strings.Join(args, ""), Follow: follow}))
			if err != nil {
				return err
			}
			defer stream.Close()
			for stream.Receive() {
				e := stream.Msg()
				if output == "json" {
					newProgress(cmd.OutOrStdout(), "json").event("event", e)
					continue
				}
				subject := e.Task
				switch {
				case subject != "":
				case e.Service != "":
					subject = e.Stack + "/" + e.Service
				case e.Stack != "":
					subject = e.Stack
				default:
					subject = e.Node
				}
				fmt.Fprintln(cmd.OutOrStdout(), strings.TrimRight(fmt.Sprintf("%s  %-18s %-24s %s",
					e.Time.AsTime().Local().Format("15:04:05.000"), e.Type, subject, e.Message), " "))
			}
			if cmd.Context().Err() != nil {
				return nil
			}
			return stream.Err()
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what comes")
	outputFlag(cmd, &output)
	return cmd
}

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"orch/engine/api"
)

func nodeCommand() *cobra.Command {
	node := &cobra.Command{Use: "node", Short: "Look at nodes and change them"}
	node.AddCommand(nodeLs(), nodeInspect(), nodePs(), nodeDrain(),
		nodeSet("pause", "Give a node no new tasks; those it has stay", &api.UpdateNodeRequest{Availability: "pause"}, "paused"),
		nodeSet("activate", "Give a node tasks again", &api.UpdateNodeRequest{Availability: "active"}, "active"),
		nodeLabel(),
		nodeSet("promote", "Make a node an engine, too", &api.UpdateNodeRequest{Role: "engine"}, "an engine"),
		nodeSet("demote", "Make an engine a worker", &api.UpdateNodeRequest{Role: "agent"}, "a worker"),
		nodeRm())
	return node
}

func nodeLs() *cobra.Command {
	leader := ""
	return listing(&cobra.Command{Use: "ls", Short: "List nodes", Args: exactly()},
		func(ctx context.Context, client clusterClient, _ []string) ([]*api.Node, error) {
			r, err := client.ListNodes(ctx, connect.NewRequest(&api.ListNodesRequest{}))
			if err != nil {
				return nil, err
			}
			stale(r.Header())
			leader = r.Msg.Leader
			return r.Msg.Nodes, nil
		},
		func(all []*api.Node) *table {
			t := &table{header: []string{"NAME", "ROLE", "STATUS", "AVAILABILITY", "FOR", "LABELS", "RUNTIMES", "CPUS", "MEMORY", "ADDRESS", "ID", "VERSION"}, wide: 7}
			slices.SortFunc(all, func(a, b *api.Node) int { return compareIDs(a.Name, b.Name) })
			for _, n := range all {
				t.add(n.Name, roleOf(n, leader), n.Status, n.Availability, ago(n.StatusSince), labels(n.Labels), runtimes(n),
					fmt.Sprintf("%g", float64(n.Facts.GetCpusMilli())/1000), fmt.Sprintf("%d MiB", n.Facts.GetMemory()>>20),
					nodeAddress(n), n.Id, n.Facts.GetVersion())
			}
			return t
		})
}

// networks says how a node takes part in networks across hosts.
func networks(n *api.Node) string {
	switch p := n.Facts.GetPlane(); {
	case p == nil:
		return ""
	case p.Error != "":
		return "none across hosts: " + p.Error
	case p.MeshKind == "":
		return "on this host alone"
	default:
		return fmt.Sprintf("WireGuard by %s, UDP port %d, in the mesh %s", map[string]string{"kernel": "the kernel", "userspace": "a process of orch's"}[p.MeshKind], p.MeshPort, n.MeshAddress)
	}
}

func roleOf(n *api.Node, leader string) string {
	if n.Id == leader {
		return n.Role + " (leader)"
	}
	return n.Role
}

func nodeAddress(n *api.Node) string {
	if n.Role == "engine" {
		return n.EngineAddress
	}
	return n.Facts.GetAddress()
}

func labels(m map[string]string) string {
	all := make([]string, 0, len(m))
	for k, v := range m {
		all = append(all, k+"="+v)
	}
	slices.Sort(all)
	return strings.Join(all, ",")
}

func runtimes(n *api.Node) string {
	var all []string
	for _, rt := range n.Facts.GetRuntimes() {
		text := rt.Name
		if rt.Error != "" {
			text += " (" + rt.Error + ")"
		} else if rt.Version != "" {
			text += " " + rt.Version
		}
		all = append(all, text)
	}
	return strings.Join(all, ", ")
}

func nodeInspect() *cobra.Command {
	var output string
	cmd := &cobra.Command{Use: "inspect NODE", Short: "Show all about a node", Args: exactly("a node")}
	cmd.RunE = asking(func(cmd *cobra.Command, client clusterClient, args []string) error {
		r, err := client.InspectNode(cmd.Context(), connect.NewRequest(&api.InspectNodeRequest{Node: args[0]}))
		if err != nil {
			return err
		}
		if output == "json" {
			return printMessage(cmd, r.Msg)
		}
		n, e := r.Msg.Node, r.Msg.Engine
		out := cmd.OutOrStdout()
		line := func(name, format string, args ...any) {
			if text := strings.TrimSpace(fmt.Sprintf(format, args...)); text != "" {
				fmt.Fprintf(out, "%-13s %s\n", name, text)
			}
		}
		line("node", "%s (%s)", n.Name, n.Id)
		line("role", "%s", n.Role)
		line("status", "%s for %s  %s", n.Status, ago(n.StatusSince), n.StatusReason)
		line("availability", "%s", n.Availability)
		line("labels", "%s", labels(n.Labels))
		line("address", "%s", nodeAddress(n))
		if e != nil {
			line("engine", "%s, log entry %d  %s", e.State, e.Applied, e.Reason)
		}
		line("host", "%s, %s/%s, %g CPUs, %d MiB", n.Facts.GetHostname(), n.Facts.GetOs(), n.Facts.GetArch(), float64(n.Facts.GetCpusMilli())/1000, n.Facts.GetMemory()>>20)
		line("runtimes", "%s", runtimes(n))
		line("networks", "%s", networks(n))
		if nat := n.Facts.GetPlane().GetBehind(); nat != "" {
			line("NAT", "it is behind one: others see %s", nat)
		}
		line("orch", "%s", n.Facts.GetVersion())
		if until := n.Facts.GetCertificateUntil(); until != nil {
			line("certificate", "until %s", until.AsTime().Local().Format("2006-01-02 15:04"))
		}
		line("ssh host key", "%s", n.HostKey)
		live := 0
		for _, t := range r.Msg.Tasks {
			if t.Status.GetState() < api.TaskState_TASK_STATE_COMPLETE {
				live++
			}
		}
		line("tasks", "%d (`orch node ps %s` lists them)", live, n.Name)
		return nil
	})
	outputFlag(cmd, &output)
	return cmd
}

func nodePs() *cobra.Command {
	var output string
	var all bool
	cmd := &cobra.Command{
		Use: "ps NODE", Short: "List a node's tasks", Args: exactly("a node"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return listTasks(cmd, &api.ListTasksRequest{Node: args[0], All: all}, output)
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "ended tasks too")
	outputFlag(cmd, &output)
	return cmd
}

// nodeSet is a command that sets one thing of nodes.
func nodeSet(use, short string, set *api.UpdateNodeRequest, is string) *cobra.Command {
	return &cobra.Command{Use: use + " NODE...", Short: short, Args: some("a node"), RunE: asking(func(cmd *cobra.Command, client clusterClient, args []string) error {
		for _, name := range args {
			ask := &api.UpdateNodeRequest{Node: name, Availability: set.Availability, Role: set.Role}
			r, err := client.UpdateNode(cmd.Context(), connect.NewRequest(ask))
			if err != nil {
				return err
			}
			if err := settled(cmd.Context(), client, r.Msg.Node, set.Role); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "Node %s is %s.\n", r.Msg.Node.Name, is)
		}
		return nil
	})}
}

// roleWithin is how long a change of role may take.
const roleWithin = 60 * time.Second

// settled waits until a node has the role that it was given.
func settled(ctx context.Context, client clusterClient, n *api.Node, role string) error {
	if role == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, roleWithin)
	defer cancel()
	why := ""
	err := until(ctx, 50*time.Millisecond, func() bool {
		r, err := client.Info(ctx, connect.NewRequest(&api.InfoRequest{}))
		if err != nil {
			why = explain(err)
			return false
		}
		state := ""
		for _, e := range r.Msg.Engines {
			if e.NodeId == n.Id {
				state, why = e.State, e.Reason
			}
		}
		return role == "engine" && (state == "voter" || state == "leader") || role == "agent" && state == ""
	})
	if err != nil {
		return fmt.Errorf("node %q does not get its role: %s", n.Name, why)
	}
	return nil
}

func nodeLabel() *cobra.Command {
	return &cobra.Command{
		Use: "label NODE KEY=VALUE... KEY-...", Short: "Set labels of a node, or remove them", Args: some("a node"),
		Long: `Set labels, which constraints of services ask for (node.labels.disk == "ssd").
KEY- removes one. Tasks that may not run on the node any more are replaced
elsewhere first, then stopped.

The label relay=yes lets a node relay between others that are behind different
NATs; it takes their packets on UDP port 4748, and can't read them.`,
		Example: "  orch node label n1 disk=ssd zone=a\n  orch node label n1 disk-",
		RunE: asking(func(cmd *cobra.Command, client clusterClient, args []string) error {
			set := map[string]string{}
			for _, a := range args[1:] {
				k, v, ok := strings.Cut(a, "=")
				switch {
				case ok && k != "" && v != "":
					set[k] = v
				case !ok && strings.HasSuffix(a, "-") && len(a) > 1:
					set[strings.TrimSuffix(a, "-")] = ""
				default:
					return &exitError{2, fmt.Sprintf("orch: %q: want KEY=VALUE, or KEY- to remove a label", a)}
				}
			}
			if len(set) == 0 {
				return &exitError{2, "orch: `orch node label` needs KEY=VALUE or KEY-"}
			}
			r, err := client.UpdateNode(cmd.Context(), connect.NewRequest(&api.UpdateNodeRequest{Node: args[0], Labels: set}))
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "Node %s: %s\n", r.Msg.Node.Name, labels(r.Msg.Node.Labels))
			return nil
		}),
	}
}

func nodeDrain() *cobra.Command {
	var wait bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "drain NODE", Short: "Move a node's tasks elsewhere, and give it no new ones", Args: exactly("a node"),
		Long: `Drain a node: each of its tasks is replaced on another node first and stopped
once the new one is ready, also where there is only one replica. With --wait the
command shows what is left and ends when nothing is. ` + "`orch node activate`" + ` undoes it.`,
	}
	cmd.RunE = asking(func(cmd *cobra.Command, client clusterClient, args []string) error {
		r, err := client.UpdateNode(cmd.Context(), connect.NewRequest(&api.UpdateNodeRequest{Node: args[0], Availability: "drain"}))
		if err != nil {
			return err
		}
		name := r.Msg.Node.Name
		if !wait {
			fmt.Fprintf(cmd.OutOrStdout(), "Node %s is being drained: `orch node ps %s` shows what is left.\n", name, name)
			return nil
		}
		return drained(cmd, client, name, timeout)
	})
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until no task runs there")
	cmd.Flags().DurationVar(&timeout, "timeout", 10*time.Minute, "with --wait: give up after this `time`; the node stays drained")
	return cmd
}

// drained shows how a drain comes along.
func drained(cmd *cobra.Command, client clusterClient, name string, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
	defer cancel()
	said, why := "", ""
	err := until(ctx, 200*time.Millisecond, func() bool {
		r, err := client.ListTasks(ctx, connect.NewRequest(&api.ListTasksRequest{}))
		switch {
		case err == nil:
			if why = leftOn(r.Msg, name); why == "" {
				return true
			}
		case ctx.Err() == nil:
			why = explain(err)
		}
		if why != said {
			fmt.Fprintf(cmd.OutOrStdout(), "Node %s: %s\n", name, why)
			said = why
		}
		return false
	})
	switch {
	case err == nil:
		fmt.Fprintf(cmd.OutOrStdout(), "Node %s is drained.\n", name)
		return nil
	case cmd.Context().Err() != nil:
		return cmd.Context().Err()
	}
	return &exitError{1, fmt.Sprintf("orch: node %s is not drained after %s: %s", name, timeout, why)}
}

// leftOn says in words what still runs on a node and what the first such task
// waits for; empty: nothing.
func leftOn(r *api.ListTasksResponse, node string) string {
	var left []*api.Task
	waits := map[string]string{} // by slot
	for _, t := range r.Tasks {
		if r.NodeNames[t.NodeId] == node || t.NodeId == node {
			left = append(left, t)
		}
		if t.Wait != nil {
			waits[t.SlotId] = t.Wait.Reason
		}
	}
	if len(left) == 0 {
		return ""
	}
	slices.SortFunc(left, func(a, b *api.Task) int { return compareIDs(a.Id, b.Id) })
	text := fmt.Sprintf("%d left", len(left))
	for i, t := range left {
		if i == 5 {
			text += " …"
			break
		}
		if text += ", " + t.Id; waits[t.SlotId] != "" {
			text += " (" + waits[t.SlotId] + ")"
		}
	}
	return text
}

func nodeRm() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "rm NODE...", Short: "Remove a node that is gone from the cluster", Args: some("a node"),
		Long: `Remove nodes: their certificates are void at once, their tasks are replaced. One
that is up is taken out in order with ` + "`orch cluster leave`" + ` on its host.`,
		RunE: asking(func(cmd *cobra.Command, client clusterClient, args []string) error {
			var failed []error
			for _, name := range args {
				if _, err := client.DeleteNode(cmd.Context(), connect.NewRequest(&api.DeleteNodeRequest{Node: name, Force: force})); err != nil {
					failed = append(failed, err)
					continue
				}
				fmt.Fprintf(cmd.OutOrStdout(), "Node %s is removed.\n", name)
			}
			return errors.Join(failed...)
		}),
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "though it is up: its tasks are stopped")
	return cmd
}

func rebalanceCommand() *cobra.Command {
	var dry bool
	var output string
	cmd := &cobra.Command{
		Use: "rebalance [STACK]", Short: "Spread tasks over the nodes again", Args: upTo(1),
		Long: `Move tasks from full nodes to empty ones, as after a node came back: each is
replaced first, then stopped, one of a service at a time. Nothing moves by itself.`,
	}
	cmd.RunE = asking(func(cmd *cobra.Command, client clusterClient, args []string) error {
		r, err := client.Rebalance(cmd.Context(), connect.NewRequest(&api.RebalanceRequest{DryRun: dry, Stack: strings.Join(args, "")}))
		if err != nil {
			return err
		}
		if output == "json" {
			return printMessages(cmd, r.Msg.Moves)
		}
		if len(r.Msg.Moves) == 0 {
			fmt.Fprintln(cmd.OutOrStdout(), "Nothing to move: the tasks are spread as well as they can be.")
			return nil
		}
		t := &table{header: []string{"TASK", "FROM", "TO", "WHY"}}
		for _, m := range r.Msg.Moves {
			t.add(m.TaskId, m.From, m.To, m.Reason)
		}
		return t.print(cmd, output)
	})
	cmd.Flags().BoolVar(&dry, "dry-run", false, "only say what would move")
	outputFlag(cmd, &output)
	return cmd
}

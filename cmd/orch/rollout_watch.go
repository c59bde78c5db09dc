package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"orch/engine/api"
	"orch/engine/rollout"
)

func rolloutWatch() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "watch STACK/SERVICE", Short: "Follow a service's rollout until it ends",
		Long: `Show a rollout's ops, its slots, what it waits for and what can be done about
it, live, until it ends. Exit code 0: it succeeded. 1: it didn't, with the
reason. Ctrl-C leaves it alone.`,
		Args: service,
		RunE: asking(func(cmd *cobra.Command, client clusterClient, args []string) error {
			return watchRollout(cmd, client, args[0], output)
		}),
	}
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text, or json: a line for each change")
	return cmd
}

func watchRollout(cmd *cobra.Command, client clusterClient, service, output string) error {
	if output != "text" && output != "json" {
		return &exitError{2, fmt.Sprintf("orch: -o %s: want text or json", output)}
	}
	if _, err := rolloutOf(cmd, client, service); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(cmd.Context())
	defer stop()
	statuses := make(chan *api.RolloutStatus)
	ended := make(chan error, 1)
	go func() { // ends with ctx, or with the service
		defer close(statuses)
		ended <- streamed(ctx, func(ctx context.Context) (*connect.ServerStreamForClient[api.RolloutStatus], error) {
			return client.WatchRollout(ctx, connect.NewRequest(&api.WatchRolloutRequest{Service: service}))
		}, statuses)
	}()
	show := newPicture(cmd.OutOrStdout(), output)
	for s := range statuses {
		show.status(s)
		switch r := s.Rollout; r.GetOutcome() {
		case "", "superseded": // of which there is a newer one
		case "succeeded":
			return nil
		default:
			return &exitError{1, fmt.Sprintf("orch: the rollout of %s is %s: %s", service, r.Outcome, r.Reason)}
		}
	}
	if err := cmd.Context().Err(); err != nil {
		return nil
	}
	if err := <-ended; err != nil {
		return err
	}
	return &exitError{1, fmt.Sprintf("orch: service %s was removed", service)}
}

// picture shows a rollout: on a terminal a block that is painted over,
// elsewhere a line an op, or JSON.
type picture struct {
	*painter
	json *progress // nil: text
	said int       // ops told of
	wait string
	id   string
}

func newPicture(out io.Writer, output string) *picture {
	p := &picture{painter: newPainter(out)}
	if output == "json" {
		p.json = newProgress(out, "json")
	}
	return p
}

func (p *picture) status(s *api.RolloutStatus) {
	switch {
	case p.json != nil:
		p.json.event("rollout", s)
	case p.width > 0:
		p.block(paintRollout(s))
	default:
		p.say(s)
	}
}

// paintedOps are the newest that a picture has room for.
const paintedOps = 8

func paintRollout(s *api.RolloutStatus) string {
	r := s.Rollout
	var out strings.Builder
	fmt.Fprintf(&out, "%s, release %d: %s -> %s by %s, %s\n", s.Service, r.Release, r.FromVersion, r.ToVersion, strategyName(r), outcome(r))
	ops := r.Journal
	if n := len(ops) - paintedOps; n > 0 {
		fmt.Fprintf(&out, "    %d ops before these\n", n)
		ops = ops[n:]
	}
	for _, op := range ops {
		fmt.Fprintf(&out, "  %s %-64s %8s  %s\n", opMark(op), opText(op), took(op), result(op))
	}
	fmt.Fprintf(&out, "  %s  %s\n", dots(s), slotsText(s))
	told := 0
	for _, x := range s.Slots {
		if x.Reason != "" && told < 5 {
			told++
			at := ""
			if x.Node != "" {
				at = " on " + x.Node
			}
			fmt.Fprintf(&out, "    %s%s: %s\n", rollout.Short(x.Id), at, x.Reason)
		}
	}
	for _, line := range waitLines(s) {
		out.WriteString(line + "\n")
	}
	return out.String()
}

// dots draws each slot: ● runs the new version, ◐ soon, ○ the old one, ✗
// nothing that is ready; ◆ and ◇ stand beside the slots.
func dots(s *api.RolloutStatus) string {
	var slots, beside strings.Builder
	for _, x := range s.Slots {
		switch {
		case x.Group != "" && x.Ready:
			beside.WriteString("◆")
		case x.Group != "":
			beside.WriteString("◇")
		case x.Updated && x.Ready:
			slots.WriteString("●")
		case x.Updated || x.Version == s.Rollout.ToVersion && !x.Updated && s.Rollout.Phase == "forward":
			slots.WriteString("◐")
		case x.Ready:
			slots.WriteString("○")
		default:
			slots.WriteString("✗")
		}
	}
	return strings.TrimSpace(slots.String() + " " + beside.String())
}

// say prints an op when it has ended, and what the open one waits for.
func (p *picture) say(s *api.RolloutStatus) {
	r := s.Rollout
	if id := fmt.Sprint(r.Id, r.Generation, r.Phase); p.id != id && (p.id == "" || r.Phase != "rollback") {
		fmt.Fprintf(p.out, "%s, release %d: %s -> %s by %s\n", s.Service, r.Release, r.FromVersion, r.ToVersion, strategyName(r))
		p.said, p.id = 0, id
	}
	p.said = min(p.said, len(r.Journal))
	for ; p.said < len(r.Journal) && r.Journal[p.said].EndedAt != nil; p.said++ {
		op := r.Journal[p.said]
		fmt.Fprintln(p.out, strings.TrimRight(fmt.Sprintf("%s %s  %s  %s", opMark(op), opText(op), took(op), result(op)), " "))
	}
	wait := fmt.Sprint(len(r.Journal), r.Outcome)
	if wait == p.wait {
		return
	}
	p.wait = wait
	if r.Outcome != "" {
		fmt.Fprintln(p.out, strings.TrimSuffix(r.Outcome+": "+r.Reason, ": "))
	} else if len(r.Journal) == 0 || r.Journal[len(r.Journal)-1].EndedAt == nil {
		fmt.Fprintln(p.out, "… "+s.WaitsFor)
	}
}

func sortedNames(m map[string]int) []string { return slices.Sorted(maps.Keys(m)) }

package script_test

import (
	"cmp"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"orch/engine/api"
	"orch/engine/rollout"
	"orch/engine/script"
	"orch/engine/simulate"
	"orch/engine/state"
	"orch/playbooks"
)

// TestTranscripts runs testdata/*.txt. Run with -rewrite after a change that
// is meant, and read the diff.
func TestTranscripts(t *testing.T) {
	transcripts(t, &playbooks.Strategies{})
}

// TestTranscriptsWithTheTwin: rolling in Go comes to the same.
func TestTranscriptsWithTheTwin(t *testing.T) {
	transcripts(t, script.Rolling{})
}

func transcripts(t *testing.T, strategy rollout.Strategy) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		if text, err := os.ReadFile(path); err != nil {
			t.Fatal(err)
		} else if _, twin := strategy.(script.Rolling); twin && strings.Contains(string(text), "strategy=") {
			return // of the library's other strategies there is no twin
		}
		s := &session{World: script.New(), asked: map[string]*api.Sample{}}
		s.Strategy, s.Prober = strategy, s
		s.Committed = func(v state.View, deltas []state.Delta) error {
			for _, d := range deltas {
				if text := s.Describe(d); text != "" {
					s.out.WriteString(text + "\n")
				}
			}
			if err := script.Bounds(v, deltas); err != nil {
				return err
			}
			return s.invariants(v)
		}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			s.out.Reset()
			if err := s.run(t, d); err != nil {
				fmt.Fprintf(&s.out, "error: %v\n", err)
			}
			return s.text()
		})
	})
}

const stack = "app"

type session struct {
	*simulate.World
	probes []string
	// followed is how far nodes that lag have come.
	followed state.Followed
	lags     bool
	bundle   *api.Bundle
	asked    map[string]*api.Sample
	spec     *api.StackSpec
	out      strings.Builder
}

var own = regexp.MustCompile(`\bapp/`)

// text is the output, the stack's name left out of ids.
func (s *session) text() string { return own.ReplaceAllString(s.out.String(), "") }

// invariants hold after every entry.
func (s *session) invariants(v state.View) error {
	for _, svc := range v.Services() {
		want := map[string]int{}
		for _, t := range v.TasksOf(svc.Id) {
			if !state.Ended(t.Status.GetState()) && !t.Hold {
				want[t.SlotId]++
			}
		}
		for slot, n := range want {
			most := 2 // start-first
			if svc.Spec.Update.GetOrder() == "stop-first" && svc.Spec.Rollback.GetOrder() != "start-first" || svc.Spec.Mode == "job" {
				most = 1
			}
			if n > most {
				return fmt.Errorf("slot %s has %d tasks", slot, n)
			}
		}
	}
	return nil
}

func (s *session) run(t *testing.T, d *datadriven.TestData) error {
	arg := func(i int) string {
		if i >= len(d.CmdArgs) {
			t.Fatalf("%s: %s wants more arguments", d.Pos, d.Cmd)
		}
		return d.CmdArgs[i].Key
	}
	id := func(i int) string { return stack + "/" + arg(i) }
	switch d.Cmd {
	case "show":
		s.out.WriteString(s.Show())
		return nil
	case "node-up":
		n := &api.Node{Id: arg(0), Labels: map[string]string{}}
		facts(t, n, d.CmdArgs[1:])
		if err := s.NodeUp(n); err != nil {
			return err
		}
	case "node-down":
		if err := s.NodeDown(arg(0)); err != nil {
			return err
		}
	case "node-remove":
		if err := s.NodeRemove(arg(0)); err != nil {
			return err
		}
	case "node-set":
		set := &api.SetNode{Labels: map[string]string{}}
		for _, a := range d.CmdArgs[1:] {
			switch v := strings.Join(a.Vals, ""); a.Key {
			case "availability":
				set.Availability = v
			case "role":
				set.Role = v
			default:
				set.Labels[a.Key] = v
			}
		}
		if err := s.NodeSet(arg(0), set); err != nil {
			return err
		}
	case "rebalance":
		moves, err := s.Rebalance()
		if err != nil {
			return err
		}
		for _, m := range moves {
			fmt.Fprintf(&s.out, "> %s from %s to %s: %s\n", m.TaskId, m.From, m.To, m.Reason)
		}
	case "running":
		s.out.WriteString(s.Really())
		return nil
	case "apply", "update":
		if err := s.apply(t, d); err != nil {
			return err
		}
	case "release":
		number, _ := strconv.Atoi(arg(0))
		r := s.State.View().Release(stack, uint64(number))
		if r == nil {
			return fmt.Errorf("no release %d", number)
		}
		s.spec = r.Spec
		if _, err := s.Apply(s.spec, "rollback"); err != nil {
			return err
		}
	case "releases":
		for _, r := range s.State.View().Releases(stack) {
			fmt.Fprintf(&s.out, "%d %s\n", r.Number, strings.TrimSuffix(cmp.Or(r.Outcome, "under way")+": "+r.Reason, ": "))
		}
		return nil
	case "tasks":
		for _, t := range s.State.View().Tasks() {
			if strings.HasPrefix(t.Id, id(0)) {
				fmt.Fprintf(&s.out, "%s %s\n", t.Id, simulate.StateName(t.Status.State))
			}
		}
		return nil
	case "stop", "start", "remove":
		if err := s.SetStack(stack, d.Cmd); err != nil {
			return err
		}
	case "bundle": // a module of strategies: s.star
		s.bundle = &api.Bundle{Root: "s.star", Files: []*api.BundleFile{{Path: "s.star", Content: []byte(d.Input)}}}
		s.bundle.Hash = playbooks.BundleHash(s.bundle)
		return nil
	case "probes": // what they will say, one after the other; the last one again and again
		s.probes = nil
		for _, a := range d.CmdArgs {
			s.probes = append(s.probes, a.Key)
		}
		return nil
	case "jobs-end":
		s.JobsEnd = arg(0) == "on"
		return nil
	case "rollout":
		s.out.WriteString(s.journal(id(0)))
		return nil
	case "pause", "resume", "abort", "retry", "promote":
		if err := s.Signal(id(0), d.Cmd); err != nil {
			return err
		}
	case "lag": // nodes follow the endpoint table no further; "off": they catch up, and go on
		if s.Followed == nil {
			s.followed = state.Followed{InFlight: map[string]uint32{}}
			s.Followed = func() state.Followed {
				f := s.followed
				if !s.lags {
					f.Applied = s.State.View().Index()
				}
				return f
			}
		}
		s.followed.Applied, s.lags = s.State.View().Index(), arg(0) == "on"
	case "in-flight": // web.1#1=3
		for _, a := range d.CmdArgs {
			n, err := strconv.Atoi(a.Vals[0])
			if err != nil {
				return err
			}
			s.followed.InFlight[stack+"/"+a.Key] = uint32(n)
		}
	case "hold":
		before := "running"
		d.MaybeScanArgs(t, "before", &before)
		s.Hold(id(0), api.TaskState(api.TaskState_value["TASK_STATE_"+strings.ToUpper(before)]))
		return nil
	case "let":
		s.World.Release(id(0))
	case "break":
		message, after, n := "exited with code 1", "-1s", -1
		d.MaybeScanArgs(t, "message", &message)
		d.MaybeScanArgs(t, "after", &after)
		d.MaybeScanArgs(t, "n", &n)
		s.Break(arg(0), message, duration(t, after), n)
	case "mend":
		s.Mend(arg(0))
	case "fail", "complete":
		message := ""
		if d.Cmd == "fail" {
			message = "exited with code 1"
			d.MaybeScanArgs(t, "message", &message)
		}
		for i := range d.CmdArgs {
			if arg(i) != "message" && !s.End(s.newest(id(i)), message) {
				return fmt.Errorf("%s isn't running", id(i))
			}
		}
	case "ready", "unready":
		if !s.SetReady(s.newest(id(0)), d.Cmd == "ready") {
			return fmt.Errorf("%s isn't running", id(0))
		}
	case "kill-leader":
		if err := s.KillLeader(); err != nil {
			return err
		}
	case "tick":
		if err := s.Advance(duration(t, arg(0))); err != nil {
			return err
		}
		return nil
	case "settle":
	default:
		t.Fatalf("%s: unknown command %s", d.Pos, d.Cmd)
	}
	return s.Settle()
}

// Probe implements rollout.Prober.
func (s *session) Probe(key string, ask rollout.ProbeOf) *api.Sample {
	if s.asked[key] == nil && len(s.probes) > 0 {
		s.asked[key] = &api.Sample{Ok: s.probes[0] == "good", Reason: s.probes[0]}
		if len(s.probes) > 1 {
			s.probes = s.probes[1:]
		}
	}
	return s.asked[key]
}

// journal shows a service's newest rollout.
func (s *session) journal(id string) string {
	v := s.State.View()
	r := v.Rollout(v.Service(id).RolloutId)
	var out strings.Builder
	for _, op := range r.Journal {
		fmt.Fprintf(&out, "%d %s", op.Seq, rollout.Text(op))
		if op.EndedAt == nil {
			out.WriteString(" ...")
		} else if op.Reason != "" {
			fmt.Fprintf(&out, ": %s", op.Reason)
		}
		out.WriteString("\n")
	}
	what, since, until := rollout.Waits(v, r, s.Now)
	if what != "" {
		fmt.Fprintf(&out, "%s, since %s", what, since.AsTime().Format("15:04:05"))
		if until != nil {
			fmt.Fprintf(&out, ", until %s", until.AsTime().Format("Jan 2 15:04:05"))
		}
		out.WriteString("\n")
	} else {
		fmt.Fprintf(&out, "%s: %s\n", r.Outcome, r.Reason)
	}
	return out.String()
}

// newest is the slot's newest task that hasn't ended; a task id stays.
func (s *session) newest(id string) string {
	if strings.Contains(id, "#") {
		return id
	}
	best := &api.Task{}
	svc, _, _ := strings.Cut(id, ".")
	for _, t := range s.State.View().TasksOf(svc) {
		if t.SlotId == id && !state.Ended(t.Status.State) && t.Attempt > best.Attempt {
			best = t
		}
	}
	return best.Id
}

func facts(t *testing.T, n *api.Node, args []datadriven.CmdArg) {
	n.Facts = &api.NodeFacts{CpusMilli: 8000, Memory: 16 << 30}
	for _, a := range args {
		v := strings.Join(a.Vals, "")
		switch a.Key {
		case "cpus":
			n.Facts.CpusMilli = int64(number(t, v) * 1000)
		case "memory":
			n.Facts.Memory = int64(number(t, v)) << 20
		case "availability":
			n.Availability = v
		case "os":
			n.Facts.Os = v
		case "arch":
			n.Facts.Arch = v
		case "runtimes":
			n.Facts.Runtimes = []*api.RuntimeFacts{}
			for _, r := range a.Vals {
				name, why, _ := strings.Cut(r, ":")
				n.Facts.Runtimes = append(n.Facts.Runtimes, &api.RuntimeFacts{Name: name, Error: why})
			}
		default:
			n.Labels[a.Key] = v
		}
	}
}

func number(t *testing.T, s string) float64 {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func duration(t *testing.T, s string) time.Duration {
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

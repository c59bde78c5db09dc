package rollout

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"orch/engine/api"
	"orch/engine/spec"
)

// healthyWithin bounds each wait for health, beside what min_healthy and the
// health check's start period ask for, from the container's start.
const healthyWithin = 5 * time.Minute

// patience is how long op waits for a task from the moment it is started.
func (s *step) patience(op *api.Op) time.Duration {
	if op.Timeout != nil {
		return op.Timeout.AsDuration()
	}
	return healthyWithin + op.Duration.AsDuration() + s.startPeriod()
}

func (s *step) startPeriod() time.Duration {
	v := s.view.Version(s.svc.Id, s.target())
	return v.GetTask().GetHealth().GetStartPeriod().AsDuration()
}

// evaluate looks whether the open op has come to its end, which it puts into
// out.End, or to something worth writing down. If not it says when to look
// again at the latest; zero: when something changes.
func (s *step) evaluate(open *api.Op) (wake time.Time) {
	op := proto.CloneOf(open)
	over := func(ok bool, reason string) {
		s.end(op, ok)
		op.Reason = reason
		s.out.End = op
	}
	switch op.Kind {
	case "begin":
		if s.svc.Spec.Mode == "replicated" && len(s.slots) != int(s.svc.Spec.Replicas) && s.r.Phase == "forward" {
			return time.Time{} // reconcile makes and drops slots
		}
		s.pin(op)
		over(true, "")
	case "surge":
		if s.grow(op); op.EndedAt != nil {
			s.out.End = op
		}
	case "pause":
		if at := op.Deadline.AsTime(); s.now.Before(at) {
			return at
		}
		over(true, "")
	case "wait_healthy":
		return s.healthy(op)
	case "wait_signal":
		if op.Deadline != nil {
			if at := op.Deadline.AsTime(); s.now.Before(at) {
				return at
			}
			over(false, fmt.Sprintf("nobody sent %q within %s", op.Text, op.Timeout.AsDuration()))
		}
	case "check":
		if sample := s.probe(op, 0); sample != nil {
			op.Samples = []*api.Sample{sample}
			over(sample.Ok, sample.Reason)
		}
	case "analyze":
		return s.analyze(op, over)
	case "run":
		s.run(op, over)
	default:
		over(false, fmt.Sprintf("op %q can't be open", op.Kind))
	}
	return time.Time{}
}

// probe asks the world outside, once for each sample of an op.
func (s *step) probe(op *api.Op, sample int) *api.Sample {
	if s.world.Prober == nil {
		return &api.Sample{At: timestamppb.New(s.now), Reason: "this engine can't ask anything outside"}
	}
	ask := ProbeOf{Probe: op.Probe, Service: s.svc.Id}
	for _, slot := range slices.Concat(s.surge, s.slots) {
		if t := s.task(slot.Id, s.target()); ready(t) {
			ask.Tasks = append(ask.Tasks, t.Id)
		}
	}
	got := s.world.Prober.Probe(fmt.Sprintf("%s/%d", s.key(op), sample), ask)
	if got != nil {
		got = &api.Sample{At: timestamppb.New(s.now), Ok: got.Ok, Reason: got.Reason}
	}
	return got
}

// analyze takes count samples, interval apart, and ends early once more are
// bad than fail_limit allows.
func (s *step) analyze(op *api.Op, over func(bool, string)) time.Time {
	n := len(op.Samples)
	if at := op.BegunAt.AsTime().Add(time.Duration(n) * op.Interval.AsDuration()); s.now.Before(at) {
		return at
	}
	sample := s.probe(op, n)
	if sample == nil {
		return time.Time{}
	}
	op.Samples = append(op.Samples, sample)
	bad := 0
	for _, x := range op.Samples {
		if !x.Ok {
			bad++
		}
	}
	switch {
	case bad > int(op.FailLimit):
		over(false, fmt.Sprintf("%d of %d samples were bad, the last: %s", bad, len(op.Samples), sample.Reason))
	case len(op.Samples) >= int(max(op.Count, 1)):
		over(true, sample.Reason)
	default:
		s.out.Update = op
	}
	return time.Time{}
}

// key identifies an op for ever: a rollout's id comes again when its service
// was removed and declared anew.
func (s *step) key(op *api.Op) string {
	return fmt.Sprintf("%s/%d/%d/%d", s.r.Id, s.r.CreatedAt.AsTime().UnixNano(), s.r.Generation, op.Seq)
}

// run starts the op's job once nothing else of it is under way, and waits
// for the run.
func (s *step) run(op *api.Op, over func(bool, string)) {
	job := s.view.Service(spec.ServiceID(s.svc.Stack, op.Text))
	if job == nil || job.Removed || job.Spec.Mode != "job" {
		over(false, fmt.Sprintf("there is no job %q in the stack", op.Text))
		return
	}
	key := s.key(op)
	switch run := job.Run; {
	case run.GetKey() == key && run.Outcome == "succeeded":
		over(true, "")
	case run.GetKey() == key && run.Outcome != "":
		over(false, fmt.Sprintf("job %q failed: %s", op.Text, run.Reason))
	case run == nil || run.Outcome != "":
		next := &api.JobRun{Number: run.GetNumber() + 1, Version: job.Version, StartedAt: timestamppb.New(s.now), Key: key}
		if d := job.Spec.Job.GetTimeout().AsDuration(); d > 0 {
			next.Deadline = timestamppb.New(s.now.Add(d))
		}
		s.out.Run = &api.ServiceChange{Id: job.Id, Run: next}
	}
}

// healthy ends a wait once each of its slots serves the target version for
// the op's duration, too many of them failed, or their time is up.
func (s *step) healthy(op *api.Op) (wake time.Time) {
	soon := func(at time.Time) {
		if wake.IsZero() || at.Before(wake) {
			wake = at
		}
	}
	failed, waiting := s.examine(op, soon)
	switch {
	case len(waiting) == 0 && len(failed) == 0:
		s.end(op, true)
	case len(failed) > 0 && (len(waiting) == 0 || len(failed) > int(op.MaxFailed)):
		s.failedOp(op, failed)
	default:
		return wake
	}
	s.out.End = op
	return time.Time{}
}

// examine says which slots of a wait failed, and which aren't there yet, and
// why; soon is told when that may change by time alone.
func (s *step) examine(op *api.Op, soon func(time.Time)) (failed, waiting map[string]string) {
	failed, waiting = map[string]string{}, map[string]string{}
	begun := s.began(op)
	patience := s.patience(op)
	for _, id := range op.Slots {
		slot := s.view.Slot(id)
		if slot == nil || slot.Removed {
			continue // scaled down meanwhile, or another took its place
		}
		if why := s.failure(slot, begun); why != "" {
			failed[id] = why
			continue
		}
		t := s.task(id, s.target())
		if t == nil && s.through(id) {
			continue
		}
		if ready(t) {
			at := t.Status.ReadySince.AsTime().Add(op.Duration.AsDuration())
			if s.now.Before(at) {
				waiting[id] = "isn't healthy for long enough"
				soon(at)
			}
			continue
		}
		waiting[id] = "isn't ready" + because(t)
		from := op.BegunAt.AsTime()
		switch st := t.GetStatus(); {
		case st.GetState() == api.TaskState_TASK_STATE_PREPARING && st.PreparedAt == nil:
			continue // what it is started from comes over the network: no clock runs yet
		case st.GetStartedAt() == nil && st.GetPreparedAt() != nil && st.PreparedAt.AsTime().After(from):
			from = st.PreparedAt.AsTime()
		case st.GetStartedAt() != nil && st.StartedAt.AsTime().After(from):
			from = st.StartedAt.AsTime()
		}
		if at := from.Add(patience); s.now.Before(at) {
			soon(at)
		} else {
			failed[id] = "wasn't ready in time" + because(t)
			delete(waiting, id)
		}
	}
	return failed, waiting
}

func (s *step) failedOp(op *api.Op, failed map[string]string) {
	s.end(op, len(failed) <= int(op.MaxFailed))
	for id := range failed {
		op.Failed = append(op.Failed, id)
	}
	slices.Sort(op.Failed)
	op.Reason = describe(failed)
}

func describe(failed map[string]string) string {
	var all []string
	for slot, why := range failed {
		all = append(all, Short(slot)+" "+why)
	}
	slices.Sort(all)
	if n := len(all); n > 3 {
		all = append(all[:3], fmt.Sprintf("and %d more", n-3))
	}
	return strings.Join(all, "; ")
}

// began is since when failures of the slots that op waits for count: when
// they were replaced last.
func (s *step) began(op *api.Op) time.Time {
	for i := len(s.r.Journal) - 1; i >= 0; i-- {
		if j := s.r.Journal[i]; (j.Kind == "replace" || j.Kind == "surge") && j.Seq < op.Seq {
			return j.BegunAt.AsTime()
		}
	}
	return op.BegunAt.AsTime()
}

// failure says how a task that this rollout made came to its end in the slot
// since then; a node's loss is not the version's fault.
func (s *step) failure(slot *api.Slot, since time.Time) string {
	for _, t := range s.tasks[slot.Id] {
		if t.Version != s.target() || t.RolloutId != s.mark() || t.CreatedAt.AsTime().Before(since) {
			continue
		}
		switch t.Status.GetState() {
		case api.TaskState_TASK_STATE_COMPLETE:
			if !s.mayComplete() {
				return "ended by itself: " + cmp.Or(t.Status.Message, "exited with code 0")
			}
		case api.TaskState_TASK_STATE_FAILED:
			return "failed: " + cmp.Or(t.Status.Message, fmt.Sprintf("exited with code %d", t.Status.ExitCode))
		}
	}
	return ""
}

// mayComplete says that an end with exit 0 is what the tasks are for.
func (s *step) mayComplete() bool {
	c := s.svc.Spec.Restart.GetCondition()
	return c == "on-failure" || c == "none"
}

// through says that the slot's newest task has done its work.
func (s *step) through(slot string) bool {
	var newest *api.Task
	for _, t := range s.tasks[slot] {
		if newest == nil || t.Attempt > newest.Attempt {
			newest = t
		}
	}
	return s.mayComplete() && newest.GetVersion() == s.target() && newest.GetStatus().GetState() == api.TaskState_TASK_STATE_COMPLETE
}

func because(t *api.Task) string {
	switch {
	case t == nil:
		return ": it has no task of its version yet"
	case t.Wait != nil:
		return ": " + t.Wait.Reason
	case t.Status.GetMessage() != "":
		return ": " + t.Status.Message
	}
	switch t.Status.GetState() {
	case api.TaskState_TASK_STATE_ASSIGNED:
		return ": its node hasn't taken it up"
	case api.TaskState_TASK_STATE_PREPARING:
		return ": it is still being prepared"
	case api.TaskState_TASK_STATE_STARTING:
		return ": it is still starting"
	}
	return ""
}

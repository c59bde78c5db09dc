package state

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"orch/engine/api"
)

// keptRollouts of each service stay for `orch service inspect`.
const keptRollouts = 5

func (w *writer) rolloutNumber(service string) int {
	newest := 0
	all := w.RolloutsOf(service)
	for _, r := range all {
		newest = max(newest, RolloutNumber(r.Id))
	}
	for _, r := range all {
		if RolloutNumber(r.Id) <= newest-keptRollouts+1 {
			w.delete(rolloutTable, r)
		}
	}
	return newest + 1
}

// RolloutNumber is the number in a rollout's id.
func RolloutNumber(id string) int {
	n, digits := 0, false
	for _, c := range id {
		switch {
		case c == '~':
			n, digits = 0, true
		case digits && c >= '0' && c <= '9':
			n = n*10 + int(c-'0')
		}
	}
	return n
}

// endRollout ends the service's rollout if one is under way.
func (w *writer) endRollout(svc *api.Service, outcome, reason string) {
	r := w.Rollout(svc.RolloutId)
	if r == nil || r.Outcome != "" && !(outcome == "superseded" && Halted(r)) {
		return
	}
	r = shallowRollout(r)
	r.Outcome, r.Reason, r.EndedAt = outcome, reason, w.now
	w.put(rolloutTable, r)
}

// advance ends and begins ops of a rollout, if it still is where the
// proposer saw it.
func (w *writer) advance(a *api.RolloutAdvance) {
	old := w.Rollout(a.GetId())
	if old == nil || old.Outcome != "" || old.Generation != a.Generation || uint64(len(old.Journal)) != a.Seq {
		return
	}
	r := shallowRollout(old)
	n := len(r.Journal)
	switch {
	case n == 0:
	case a.End != nil && r.Journal[n-1].EndedAt != nil:
		return // an operator ended it meanwhile
	case a.End != nil:
		r.Journal[n-1] = a.End
	case a.Update != nil && r.Journal[n-1].EndedAt == nil:
		r.Journal[n-1] = a.Update
	}
	if a.Begin != nil {
		if n == 0 {
			w.beginRollout(r)
		}
		r.Journal = append(r.Journal, a.Begin)
	}
	if len(a.FailedTasks) > 0 {
		r.FailedTasks = a.FailedTasks
	}
	if a.Reason != "" {
		r.Reason = a.Reason
	}
	if a.Outcome != "" {
		r.Outcome, r.EndedAt = a.Outcome, w.now
	}
	if a.Phase == "rollback" && r.Phase != "rollback" {
		w.takeBack(r, a.Reason)
	} else {
		w.put(rolloutTable, r)
	}
	for _, s := range a.Slots {
		if svc := w.Service(s.GetServiceId()); s.GetId() == "" || svc == nil || s.ServiceId != r.ServiceId {
			continue
		}
		s = proto.CloneOf(s)
		s.Attempts = w.Slot(s.Id).GetAttempts()
		w.put(slotTable, s)
	}
	if c := a.Run; c != nil {
		w.changeService(c)
	}
}

// beginRollout brings the service to what it is rolled to.
func (w *writer) beginRollout(r *api.Rollout) {
	svc := w.Service(r.ServiceId)
	if svc == nil || svc.RolloutId != r.Id || r.Phase == "rollback" {
		return
	}
	svc = shallowService(svc)
	svc.Version, svc.Release, svc.UpdatedAt = r.ToVersion, r.Release, w.now
	if r.To != nil {
		svc.Spec = r.To
	}
	if r.Deadline == nil {
		w.giveTime(r)
	}
	w.put(serviceTable, svc)
}

// defaultDeadline bounds a rollout whose policy doesn't.
const defaultDeadline = 24 * time.Hour

// giveTime sets the deadline of a rollout that begins now, or goes on.
func (w *writer) giveTime(r *api.Rollout) {
	d := defaultDeadline
	if r.Policy.GetDeadline() != nil {
		d = r.Policy.Deadline.AsDuration()
	}
	r.Deadline = timestamppb.New(w.now.AsTime().Add(d))
}

// takeBack lets a rollout go back to where it came from; one that hasn't
// begun is over.
func (w *writer) takeBack(old *api.Rollout, reason string) {
	if old.Phase == "rollback" || old.Outcome == "rolled_back" {
		return
	}
	r := shallowRollout(old)
	r.Reason, r.Phase, r.Outcome, r.EndedAt = reason, "rollback", "", nil
	r.Generation++
	r.Deadline = nil
	if len(r.Journal) == 0 {
		r.Outcome, r.EndedAt = "rolled_back", w.now
		w.put(rolloutTable, r)
		return
	}
	if n := len(r.Journal); r.Journal[n-1].EndedAt == nil {
		op := proto.CloneOf(r.Journal[n-1])
		op.EndedAt, op.Reason = w.now, "the rollout is taken back"
		r.Journal[n-1] = op
	}
	w.put(rolloutTable, r)
	svc := w.Service(r.ServiceId)
	if svc == nil || svc.RolloutId != r.Id || r.From == nil {
		return
	}
	svc = shallowService(svc)
	svc.Spec, svc.Version, svc.UpdatedAt = r.From, r.FromVersion, w.now
	if svc.StableRelease > 0 {
		svc.Release = svc.StableRelease
	}
	w.put(serviceTable, svc)
}

// reopen drops the open op of a service's rollout, which is then begun anew:
// its deadline went on while the stack was stopped.
func (w *writer) reopen(svc *api.Service) {
	old := w.Rollout(svc.RolloutId)
	if old == nil || old.Outcome != "" {
		return
	}
	r := shallowRollout(old)
	dropOpen(r)
	if r.Deadline != nil {
		w.giveTime(r)
	}
	w.put(rolloutTable, r)
}

// dropOpen takes an op out of the journal that waits until a deadline, or for
// answers that are old by now; one that counts time, or a job, goes on.
func dropOpen(r *api.Rollout) bool {
	n := len(r.Journal)
	if n == 0 || r.Journal[n-1].EndedAt != nil || r.Journal[n-1].Kind == "pause" || r.Journal[n-1].Kind == "run" {
		return false
	}
	r.Journal = r.Journal[:n-1]
	r.Generation++
	return true
}

// signalRollout does what an operator says of a service's rollout.
func (w *writer) signalRollout(s *api.SignalRollout) error {
	svc := w.Service(s.GetServiceId())
	if svc == nil {
		return refuse(NotFound, "no service %q", s.GetServiceId())
	}
	old := w.Rollout(svc.RolloutId)
	if old == nil {
		return refuse(NotFound, "service %q has no rollout", svc.Id)
	}
	r := shallowRollout(old)
	cannot := func(why string) error {
		return refuse(Invalid, "cannot %s the rollout of %q: %s", s.Signal, svc.Id, why)
	}
	is := "it is " + nonEmpty(old.Outcome, "under way")
	rel := w.Release(svc.Stack, old.Release)
	switch s.Signal {
	case "pause":
		if old.Outcome != "" {
			return cannot(is)
		}
		w.endRollout(svc, "paused", "paused by "+s.By)
		return nil
	case "resume":
		if !Halted(old) {
			return cannot(is)
		}
		if n := len(r.Journal); n == 0 || old.Outcome == "needs_operator" || r.Journal[n-1].Kind == "fail" || r.Journal[n-1].EndedAt != nil {
			again(r)
		} else {
			dropOpen(r)
		}
		if r.Phase != "rollback" {
			r.Reason = ""
		}
	case "retry":
		switch {
		case old.Outcome == "" || old.Outcome == "succeeded" || old.Outcome == "superseded":
			return cannot(is)
		case rel.GetOutcome() == "rolled_back" || rel == nil || rel.Number != w.Stack(svc.Stack).GetRelease():
			return cannot("its release is over; `orch run` deploys a playbook again")
		case rel.Phase == "rollback" && rel.Outcome == "":
			return cannot(fmt.Sprintf("release %d is being taken back", rel.Number))
		}
		again(r)
		r.Phase, r.Reason = "forward", ""
	case "abort":
		switch {
		case old.Outcome != "" && !Halted(old):
			return cannot(is)
		case old.Phase == "rollback":
			return cannot("it is being taken back already")
		case r.From == nil || r.FromVersion == r.ToVersion:
			return cannot("there is no other version to go back to")
		}
		w.goOn(rel, svc)
		w.takeBack(r, "aborted by "+s.By)
		return nil
	default:
		return w.promote(svc, r, s)
	}
	r.Outcome, r.EndedAt = "", nil
	w.giveTime(r)
	w.put(rolloutTable, r)
	w.goOn(rel, svc)
	return nil
}

// again lets a rollout begin from its top.
func again(r *api.Rollout) {
	r.Journal, r.FailedTasks = nil, nil
	r.Generation++
}

// goOn lets a release go on that stood still because of a service, with what
// was given up for it.
func (w *writer) goOn(rel *api.Release, svc *api.Service) {
	if rel == nil || rel.Phase == "rollback" || rel.Number != w.Stack(rel.Stack).GetRelease() {
		return
	}
	switch rel.Outcome {
	case "", "paused", "failed":
	default:
		return
	}
	rel = shallowRelease(rel)
	rel.Outcome, rel.Reason, rel.EndedAt = "", "", nil
	again := map[string]bool{svc.Name: true}
	for grown := true; grown; {
		grown = false
		for i, s := range rel.Steps {
			state := ""
			switch {
			case s.State != "failed":
				continue
			case s.Service == svc.Name:
				state = "begun"
			case !slices.ContainsFunc(s.After, func(on string) bool { return again[on] }):
				continue
			}
			s = proto.CloneOf(s)
			s.State, s.Reason, s.Tolerated, s.Skipped = state, "", false, false
			rel.Steps[i] = s
			again[s.Service], grown = true, true
		}
	}
	w.put(releaseTable, rel)
}

// promote ends the open op that waits for the signal.
func (w *writer) promote(svc *api.Service, r *api.Rollout, s *api.SignalRollout) error {
	n := len(r.Journal)
	if r.Outcome != "" || n == 0 || r.Journal[n-1].EndedAt != nil || r.Journal[n-1].Kind != "wait_signal" {
		return refuse(Invalid, "the rollout of %q doesn't wait for %q: it is %s", svc.Id, s.Signal, nonEmpty(r.Outcome, "under way"))
	}
	op := proto.CloneOf(r.Journal[n-1])
	if op.Text != s.Signal {
		return refuse(Invalid, "the rollout of %q doesn't wait for %q, but for %q", svc.Id, s.Signal, op.Text)
	}
	op.Ok, op.EndedAt, op.By = true, w.now, s.By
	r.Journal[n-1] = op
	w.put(rolloutTable, r)
	return nil
}

// Halted says that a rollout waits for an operator; nil does not.
func Halted(r *api.Rollout) bool {
	return r.GetOutcome() == "paused" || r.GetOutcome() == "needs_operator"
}

func nonEmpty(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func itoa(n uint64) string { return strconv.FormatUint(n, 10) }

// shallowRollout copies a rollout's own fields and the list of its ops; the
// ops are shared and must be replaced, not changed.
func shallowRollout(r *api.Rollout) *api.Rollout {
	return &api.Rollout{
		Id: r.Id, ServiceId: r.ServiceId, Release: r.Release, FromVersion: r.FromVersion, ToVersion: r.ToVersion, Policy: r.Policy,
		Outcome: r.Outcome, Reason: r.Reason, CreatedAt: r.CreatedAt, EndedAt: r.EndedAt, Journal: append(make([]*api.Op, 0, len(r.Journal)+1), r.Journal...),
		Phase: r.Phase, Deadline: r.Deadline, Generation: r.Generation, FailedTasks: r.FailedTasks, From: r.From, To: r.To,
		BundleHash: r.BundleHash, ApiVersion: r.ApiVersion, ParamsJson: r.ParamsJson,
	}
}

package state

import (
	"slices"

	"google.golang.org/protobuf/proto"

	"orch/engine/api"
	"orch/engine/spec"
)

// keptReleases of each stack stay for rollbacks.
const keptReleases = 10

// putRelease commits a release and begins it, unless the one under way asked
// newer ones to wait.
func (w *writer) putRelease(p *api.PutRelease) error {
	r := p.GetRelease()
	if r.GetStack() == "" || r.GetSpec().GetName() != r.GetStack() {
		return refuse(Invalid, "a release needs a stack and its spec")
	}
	st := w.Stack(r.Stack)
	if st.GetRelease() != p.BaseRelease {
		return refuse(Stale, "stack %q is at release %d now, not %d: plan again", r.Stack, st.GetRelease(), p.BaseRelease)
	}
	for _, s := range r.Spec.Services {
		if p.Versions[s.Name] == "" {
			return refuse(Invalid, "service %q comes without a version", s.Name)
		}
	}
	if st == nil {
		st = &api.Stack{Name: r.Stack, CreatedAt: w.now}
	} else {
		st = proto.CloneOf(st)
	}
	st.Release++
	w.release = st.Release
	r = shallowRelease(r)
	r.Number, r.CreatedAt, r.Phase, r.Outcome, r.Reason, r.EndedAt, r.Steps = st.Release, w.now, "forward", "", "", nil, nil
	if err := w.putNetworks(r); err != nil {
		return err
	}
	if b := p.Bundle; b.GetHash() != "" && w.Bundle(b.Hash) == nil {
		w.put(bundleTable, b)
	}
	for _, s := range p.Secrets {
		if err := w.putSecret(s); err != nil {
			return err
		}
	}
	queued := false
	for _, other := range w.Releases(r.Stack) {
		switch {
		case other.Outcome != "":
		case !st.Stopped && !st.Removed && other.Phase != "queued" && w.letsWait(other):
			queued = true
		default:
			w.endRelease(other, "superseded", "a newer release came")
		}
	}
	if queued {
		r.Phase = "queued"
		w.put(stackTable, st)
		w.put(releaseTable, r)
		return nil
	}
	w.beginRelease(st, r, p.Versions)
	return nil
}

// letsWait says that newer releases wait until r has ended.
func (w *writer) letsWait(r *api.Release) bool {
	return slices.ContainsFunc(w.ServicesOf(r.Stack), func(s *api.Service) bool {
		ro := w.Rollout(s.RolloutId)
		return ro != nil && ro.Outcome == "" && ro.Policy.GetSupersede() == "queue"
	})
}

// beginRelease brings the stack's services, whose versions are given by
// name, to r as far as no other one has to come first: each that changes is a
// step of the release.
func (w *writer) beginRelease(st *api.Stack, r *api.Release, versions map[string]string) {
	stopped := st.Stopped
	st.Stopped, st.Removed = false, false
	w.put(stackTable, st)
	declared := map[string]bool{}
	for _, s := range r.Spec.Services {
		declared[s.Name] = true
		if action := w.putService(r, s, versions[s.Name], stopped); action != "" {
			r.Steps = append(r.Steps, &api.ReleaseStep{Service: s.Name, Action: action})
		}
	}
	for _, old := range w.ServicesOf(r.Stack) {
		if declared[old.Name] || old.Removed {
			continue
		}
		step := &api.ReleaseStep{Service: old.Name, Action: "remove"}
		if stopped || inTheWay(old.Spec, r.Spec) {
			step.State = "done"
			w.removeService(old)
		}
		r.Steps = append(r.Steps, step)
	}
	order(r)
	for _, step := range r.Steps {
		if step.Action == "change" {
			step.State = "done"
		}
	}
	for _, step := range Startable(r) {
		step.State = "begun"
		if step.Action == "remove" {
			step.State = "done"
			w.removeService(w.Service(spec.ServiceID(r.Stack, step.Service)))
		}
	}
	w.put(releaseTable, r)
	if !slices.ContainsFunc(r.Steps, func(s *api.ReleaseStep) bool { return s.State != "done" }) {
		w.endRelease(r, "succeeded", "")
	}
	w.forgetNetworks(r)
	w.forgetReleases(r.Stack)
}

// putService brings a service to a release and says what that takes: "" is
// nothing. What needs no new task changes at once; what does is a rollout,
// until the beginning of which the service stays as it was. Where nothing
// runs, since the stack was stopped, nothing has to be rolled.
func (w *writer) putService(r *api.Release, s *api.ServiceSpec, version string, stopped bool) (action string) {
	id := spec.ServiceID(r.Stack, s.Name)
	if w.Version(id, version) == nil {
		w.put(versionTable, &api.Version{Id: VersionID(id, version), ServiceId: id, Hash: version, Task: s.Task})
	}
	old := w.Service(id)
	if old == nil || old.Removed || stopped || old.Spec.GetMode() != s.Mode {
		w.createService(r, old, s, version, stopped)
		if stopped || s.Job.GetOnDemand() {
			return ""
		}
		return "create"
	}
	svc := shallowService(old)
	defer func() {
		w.putServiceRow(svc)
		w.forgetVersions(svc)
	}()
	current := w.Rollout(old.RolloutId)
	open := current != nil && (current.Outcome == "" || Halted(current)) && current.Phase != "rollback"
	// Declared again as it is, a rollout that stands still is tried again; a
	// change of count alone leaves it to its operator.
	again := current != nil && (Halted(current) || current.Outcome == "failed") && s.Replicas == old.Spec.GetReplicas()
	begun := current != nil && len(current.Journal) > 0
	switch {
	case s.Mode == "job":
		svc.Spec, svc.Version, svc.Release, svc.UpdatedAt = s, version, r.Number, w.now
		if version == old.Version || s.Job.GetSchedule() != "" || s.Job.GetOnDemand() {
			if same(old.Spec, s) {
				return ""
			}
			return "change"
		}
		return "run"
	case open && !again && version == current.ToVersion:
		ro := shallowRollout(current)
		ro.To, ro.Release = s, r.Number
		w.put(rolloutTable, ro)
		if begun {
			svc.Spec, svc.Release, svc.UpdatedAt = s, r.Number, w.now
		}
		return "rollout"
	case version != old.Version || again:
		w.endRollout(old, "superseded", "a newer release came")
		ro := &api.Rollout{
			Id: RolloutID(id, w.rolloutNumber(id)), ServiceId: id, Release: r.Number, FromVersion: old.StableVersion, From: old.StableSpec,
			ToVersion: version, To: s, Policy: s.Update, CreatedAt: w.now, Phase: "forward", BundleHash: r.BundleHash, ApiVersion: 1, ParamsJson: r.ParamsJson,
		}
		if ro.From == nil { // as it runs, though nobody knows whether that is good
			ro.FromVersion, ro.From = old.Version, old.Spec
		}
		svc.RolloutId = ro.Id
		w.put(rolloutTable, ro)
		return "rollout"
	}
	if open && !begun { // there and back before it began
		w.endRollout(old, "superseded", "a newer release came")
	}
	if same(old.Spec, s) {
		svc.Release = r.Number
		return ""
	}
	svc.Spec, svc.Release, svc.UpdatedAt = s, r.Number, w.now
	return "change"
}

// createService makes a service, or makes it anew.
func (w *writer) createService(r *api.Release, old *api.Service, s *api.ServiceSpec, version string, stopped bool) {
	svc := &api.Service{
		Id: spec.ServiceID(r.Stack, s.Name), Stack: r.Stack, Name: s.Name, Spec: s, Version: version, Release: r.Number,
		CreatedAt: w.now, UpdatedAt: w.now,
	}
	if stopped {
		svc.StableSpec, svc.StableVersion, svc.StableRelease = s, version, r.Number
	}
	if old != nil { // it comes back before the last of its tasks went
		svc.CreatedAt, svc.Run, svc.Addresses = old.CreatedAt, old.Run, old.Addresses
		if !old.Removed && !stopped {
			svc.StableSpec, svc.StableVersion, svc.StableRelease = old.StableSpec, old.StableVersion, old.StableRelease
		}
		w.endRollout(old, "superseded", "the service was declared anew")
		if old.Spec.GetMode() != s.Mode && svc.Run != nil {
			svc.Run = proto.CloneOf(svc.Run)
			svc.Run.Version = "" // what ran then was another kind of service
		}
		for _, slot := range w.SlotsOf(svc.Id) {
			removed := slot.Group != ""
			slot = proto.CloneOf(slot)
			slot.Version, slot.Removed, slot.Order, slot.RolloutId, slot.Run, slot.Group = version, removed, "", "", 0, ""
			w.put(slotTable, slot)
		}
	}
	if !stopped && s.Mode != "job" && len(s.Update.GetBefore())+len(s.Update.GetAfter()) > 0 {
		ro := &api.Rollout{
			Id: RolloutID(svc.Id, w.rolloutNumber(svc.Id)), ServiceId: svc.Id, Release: r.Number, ToVersion: version, To: s,
			Policy: s.Update, CreatedAt: w.now, Phase: "forward", BundleHash: r.BundleHash, ApiVersion: 1, ParamsJson: r.ParamsJson,
		}
		svc.RolloutId = ro.Id
		w.put(rolloutTable, ro)
		for _, slot := range w.SlotsOf(svc.Id) {
			slot = proto.CloneOf(slot)
			slot.Version = "" // nothing runs before the jobs have
			w.put(slotTable, slot)
		}
	}
	w.putServiceRow(svc)
}

func same(a, b *api.ServiceSpec) bool { return len(spec.Diff(a, b)) == 0 }

// inTheWay says that a service which goes holds a port that one of the new
// ones needs.
func inTheWay(old *api.ServiceSpec, new *api.StackSpec) bool {
	taken := map[uint32]bool{}
	for _, p := range old.Ports {
		taken[p.Publish] = p.Publish > 0
	}
	for _, p := range old.Task.GetHostPorts() {
		taken[p.Port] = true
	}
	for _, s := range new.Services {
		for _, p := range s.Ports {
			if taken[p.Publish] && p.Publish > 0 {
				return true
			}
		}
		for _, p := range s.Task.GetHostPorts() {
			if taken[p.Port] {
				return true
			}
		}
	}
	return false
}

func (w *writer) removeService(old *api.Service) {
	w.endRollout(old, "superseded", "the service was removed")
	svc := shallowService(old)
	svc.Removed, svc.UpdatedAt = true, w.now
	w.put(serviceTable, svc)
}

// forgetVersions drops what no slot, task or rollback refers to any more.
func (w *writer) forgetVersions(svc *api.Service) {
	used := map[string]bool{svc.Version: true, svc.StableVersion: true}
	if r := w.Rollout(svc.RolloutId); r != nil {
		used[r.FromVersion], used[r.ToVersion] = true, true
	}
	for _, s := range w.SlotsOf(svc.Id) {
		used[s.Version] = true
	}
	for _, t := range w.TasksOf(svc.Id) {
		used[t.Version] = true
	}
	for _, v := range w.versionsOf(svc.Id) {
		if !used[v.Hash] {
			w.delete(versionTable, v)
		}
	}
}

// forgetReleases drops the oldest releases, but none that a service still
// runs or could be rolled back to, and then the bundles nobody refers to.
func (w *writer) forgetReleases(stack string) {
	needed := map[uint64]bool{w.Stack(stack).GetStableRelease(): true}
	for _, s := range w.ServicesOf(stack) {
		needed[s.Release], needed[s.StableRelease], needed[w.Rollout(s.RolloutId).GetRelease()] = true, true, true
	}
	all := w.Releases(stack)
	for i, r := range all {
		if len(all)-i > keptReleases && !needed[r.Number] {
			w.delete(releaseTable, r)
		}
	}
	w.forgetBundles()
}

func (w *writer) forgetBundles() {
	used := map[string]bool{}
	for _, st := range w.Stacks() {
		for _, r := range w.Releases(st.Name) {
			used[r.BundleHash] = true
		}
	}
	for _, s := range w.Services() {
		used[w.Rollout(s.RolloutId).GetBundleHash()] = true
	}
	for _, b := range w.bundles() {
		if !used[b.Hash] {
			w.delete(bundleTable, b)
		}
	}
}

// shallowRelease copies a release's own fields and its list of steps.
func shallowRelease(r *api.Release) *api.Release {
	return &api.Release{
		Stack: r.Stack, Number: r.Number, BundleHash: r.BundleHash, ParamsJson: r.ParamsJson, Spec: r.Spec, Cause: r.Cause, By: r.By,
		CreatedAt: r.CreatedAt, Phase: r.Phase, Outcome: r.Outcome, Reason: r.Reason, EndedAt: r.EndedAt, Steps: slices.Clone(r.Steps),
	}
}

// shallowService copies a service's own fields; specs are shared: nobody
// changes them.
func shallowService(s *api.Service) *api.Service {
	return &api.Service{
		Id: s.Id, Stack: s.Stack, Name: s.Name, Spec: s.Spec, Version: s.Version, Release: s.Release, StableSpec: s.StableSpec,
		StableVersion: s.StableVersion, RolloutId: s.RolloutId, Removed: s.Removed, CreatedAt: s.CreatedAt, UpdatedAt: s.UpdatedAt,
		Run: s.Run, StableRelease: s.StableRelease, Addresses: s.Addresses,
	}
}

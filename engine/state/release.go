package state

import (
	"google.golang.org/protobuf/proto"

	"orch/engine/api"
	"orch/engine/spec"
)

// keptReleases of each stack stay for rollbacks.
const keptReleases = 10

func (w *writer) putRelease(p *api.PutRelease) error {
	r := p.GetRelease()
	if r.GetStack() == "" || r.GetSpec().GetName() != r.GetStack() {
		return refuse(Invalid, "a release needs a stack and its spec")
	}
	st := w.Stack(r.Stack)
	stopped := st.GetStopped()
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
	st.Stopped, st.Removed = false, false
	w.release = st.Release
	w.put(stackTable, st)

	r = proto.CloneOf(r)
	r.Number, r.CreatedAt = st.Release, w.now
	w.put(releaseTable, r)
	if b := p.Bundle; b.GetHash() != "" && w.Bundle(b.Hash) == nil {
		w.put(bundleTable, b)
	}
	for _, s := range p.Secrets {
		if err := w.putSecret(s); err != nil {
			return err
		}
	}
	declared := map[string]bool{}
	for _, s := range r.Spec.Services {
		declared[s.Name] = true
		w.putService(r, s, p.Versions[s.Name], stopped)
	}
	for _, old := range w.ServicesOf(r.Stack) {
		if !declared[old.Name] && !old.Removed {
			w.removeService(old)
		}
	}
	w.forgetReleases(r.Stack)
	return nil
}

// putService brings a service to a release: a new one starts at it, one of
// another version gets a rollout, else only what needs no new task changes.
// Where nothing runs, since the stack was stopped, nothing has to be rolled.
func (w *writer) putService(r *api.Release, s *api.ServiceSpec, version string, stopped bool) {
	id := spec.ServiceID(r.Stack, s.Name)
	if w.Version(id, version) == nil {
		w.put(versionTable, &api.Version{Id: VersionID(id, version), ServiceId: id, Hash: version, Task: s.Task})
	}
	old := w.Service(id)
	if old == nil || old.Removed || stopped || old.Spec.GetMode() != s.Mode {
		svc := &api.Service{
			Id: id, Stack: r.Stack, Name: s.Name, Spec: s, Version: version, Release: r.Number,
			StableSpec: s, StableVersion: version, StableRelease: r.Number, CreatedAt: w.now, UpdatedAt: w.now,
		}
		if old != nil { // it comes back before the last of its tasks went
			svc.CreatedAt, svc.Run = old.CreatedAt, old.Run
			w.endRollout(old, "superseded", "the service was declared anew")
			if old.Spec.GetMode() != s.Mode && svc.Run != nil {
				svc.Run = proto.CloneOf(svc.Run)
				svc.Run.Version = "" // what ran then was another kind of service
			}
			for _, slot := range w.SlotsOf(id) {
				slot = proto.CloneOf(slot)
				slot.Version, slot.Removed, slot.Order, slot.RolloutId, slot.Run = version, false, "", "", 0
				w.put(slotTable, slot)
			}
		}
		w.put(serviceTable, svc)
		return
	}
	svc := proto.CloneOf(old)
	svc.Spec, svc.Release, svc.UpdatedAt = s, r.Number, w.now
	current := w.Rollout(old.RolloutId)
	// Declared again as it is, a rollout that stands still is tried again; a
	// change of count alone leaves it to its operator.
	again := current != nil && (halted(current) || current.Outcome == "failed") && s.Replicas == old.Spec.GetReplicas()
	switch {
	case s.Mode == "job":
		svc.Version = version
		svc.StableSpec, svc.StableVersion, svc.StableRelease = s, version, r.Number
	case version != old.Version || again:
		w.endRollout(old, "superseded", "a newer release came")
		ro := &api.Rollout{
			Id: RolloutID(id, w.rolloutNumber(id)), ServiceId: id, Release: r.Number, FromVersion: old.StableVersion,
			ToVersion: version, Policy: s.Update, CreatedAt: w.now, Phase: "forward",
		}
		svc.Version, svc.RolloutId = version, ro.Id
		w.put(rolloutTable, ro)
	case current == nil || current.Outcome != "" && version == old.StableVersion:
		svc.StableSpec, svc.StableVersion, svc.StableRelease = s, version, r.Number
	}
	w.put(serviceTable, svc)
	w.forgetVersions(svc)
}

// forgetVersions drops what no slot, task or rollback refers to any more.
func (w *writer) forgetVersions(svc *api.Service) {
	used := map[string]bool{svc.Version: true, svc.StableVersion: true}
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

// keptRollouts of each service stay for `orch service inspect`.
const keptRollouts = 5

func (w *writer) rolloutNumber(service string) int {
	newest := 0
	all := w.RolloutsOf(service)
	for _, r := range all {
		newest = max(newest, rolloutNumber(r.Id))
	}
	for _, r := range all {
		if rolloutNumber(r.Id) <= newest-keptRollouts+1 {
			w.delete(rolloutTable, r)
		}
	}
	return newest + 1
}

func rolloutNumber(id string) int {
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
	if r == nil || r.Outcome != "" {
		return
	}
	r = proto.CloneOf(r)
	r.Outcome, r.Reason, r.EndedAt = outcome, reason, w.now
	w.put(rolloutTable, r)
}

func (w *writer) removeService(old *api.Service) {
	w.endRollout(old, "superseded", "the service was removed")
	svc := proto.CloneOf(old)
	svc.Removed, svc.UpdatedAt = true, w.now
	w.put(serviceTable, svc)
}

// forgetReleases drops the oldest releases, but none that a service still
// runs or could be rolled back to, and then the bundles nobody refers to.
func (w *writer) forgetReleases(stack string) {
	needed := map[uint64]bool{}
	for _, s := range w.ServicesOf(stack) {
		needed[s.Release], needed[s.StableRelease] = true, true
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
	for _, b := range w.bundles() {
		if !used[b.Hash] {
			w.delete(bundleTable, b)
		}
	}
}

// SecretID names a secret's value: one of a stack, or (stack "") one of the
// cluster, made with `orch secret create`.
func SecretID(stack, name string) string { return stack + "/" + name }

func (w *writer) putSecret(s *api.SecretValue) error {
	if s.GetName() == "" || len(s.Sealed) == 0 {
		return refuse(Invalid, "a secret needs a name and a sealed value")
	}
	s = proto.CloneOf(s)
	s.Id, s.CreatedAt = SecretID(s.Stack, s.Name)+"@"+s.Digest, w.now
	for _, other := range w.SecretValues(s.Stack, s.Name) {
		if other.Current && other.Digest != s.Digest {
			other = proto.CloneOf(other)
			other.Current = false
			w.put(secretTable, other)
		}
	}
	s.Current = true
	w.put(secretTable, s)
	return nil
}

// SecretValues lists the kept values of a secret; one is current.
func (v View) SecretValues(stack, name string) []*api.SecretValue {
	return list[*api.SecretValue](v, secretTable, idIndex+"_prefix", SecretID(stack, name)+"@")
}

// CurrentSecret is the value that new tasks get; nil if there is none.
func (v View) CurrentSecret(stack, name string) *api.SecretValue {
	for _, s := range v.SecretValues(stack, name) {
		if s.Current {
			return s
		}
	}
	return nil
}

func (w *writer) removeSecret(r *api.RemoveSecret) error {
	stack, name := spec.SplitServiceID(r.GetId())
	values := w.SecretValues(stack, name)
	if len(values) == 0 {
		return refuse(NotFound, "no secret %q", name)
	}
	for _, svc := range w.Services() {
		for _, ref := range svc.Spec.GetTask().GetSecrets() {
			if ref.Name == name && (stack == "" || svc.Stack == stack) {
				return refuse(InUse, "secret %q is in use by service %q", name, svc.Id)
			}
		}
	}
	for _, s := range values {
		w.delete(secretTable, s)
	}
	return nil
}

package dispatch

import (
	"log/slog"

	"orch/engine/api"
	"orch/engine/state"
)

// sentTasks is what a session has sent of each task, by id.
type sentTasks map[string]sent

// sent tells tasks of one id apart by their creation: a service that was
// removed and comes back counts its attempts anew.
type sent struct {
	created int64 // ns since 1970
	desired api.TaskDesired
	hold    bool
	drained bool
}

// update says what to send so that the agent knows all that v has for node;
// nil if it knows already. The first message of a session is full.
func (known sentTasks) update(v state.View, node string, open Opener, log *slog.Logger) *api.Assignments {
	m := &api.Assignments{Full: len(known) == 0}
	seen := make(map[string]bool, len(known))
	a := assigner{view: v, open: open, log: log}
	for _, t := range v.TasksOn(node) {
		seen[t.Id] = true
		was, is := known[t.Id], sent{t.CreatedAt.AsTime().UnixNano(), t.Desired, t.Hold, t.Drained}
		if was == is {
			continue
		}
		known[t.Id] = is
		m.Tasks = append(m.Tasks, a.assignment(t, was.created == is.created))
	}
	for id := range known {
		if !seen[id] && id != "" {
			delete(known, id)
			m.Removed = append(m.Removed, id)
		}
	}
	known[""] = sent{} // a session that has sent something is not empty
	if !m.Full && len(m.Tasks)+len(m.Removed) == 0 {
		return nil
	}
	return m
}

// assigner makes assignments from one view.
type assigner struct {
	view state.View
	open Opener
	log  *slog.Logger
}

// assignment is all that the agent needs; of a task that it knows only what
// changed.
func (a assigner) assignment(t *api.Task, known bool) *api.Assignment {
	as := &api.Assignment{TaskId: t.Id, Desired: t.Desired, Version: t.Version, Slot: t.SlotId, NotBefore: t.NotBefore, CreatedAt: t.CreatedAt, Status: t.Status, Hold: t.Hold, Drained: t.Drained}
	if known {
		return as
	}
	svc := a.view.Service(t.ServiceId)
	if svc == nil {
		return as
	}
	as.Stack, as.Service, as.Labels = svc.Stack, svc.Name, svc.Spec.Labels
	as.Mode, as.Ports = svc.Spec.Mode, svc.Spec.Ports
	as.Spec = a.view.Version(t.ServiceId, t.Version).GetTask()
	if state.Ended(t.Status.GetState()) {
		return as
	}
	for _, ref := range as.Spec.GetConfigs() {
		if c := a.config(svc, ref); c != nil {
			as.Files = append(as.Files, &api.TaskFile{Name: ref.Name, Path: ref.Path, Mode: ref.Mode, Content: c.Content})
		}
	}
	for _, ref := range as.Spec.GetSecrets() {
		if f := a.secret(svc, ref); f != nil {
			as.Files = append(as.Files, f)
		}
	}
	release := a.view.Release(svc.Stack, svc.Release)
	for _, name := range as.Spec.GetNetworks() {
		if n := a.view.Network(state.NetworkID(svc.Stack, name)); n != nil {
			as.Networks = append(as.Networks, &api.TaskNetwork{Spec: n.Spec, Id: n.Id, Vni: n.Vni, Subnet: n.Subnet, Address: t.Addresses[name], Mtu: n.Mtu})
			continue
		}
		for _, n := range release.GetSpec().GetNetworks() {
			if n.Name == name {
				as.Networks = append(as.Networks, &api.TaskNetwork{Spec: n})
			}
		}
	}
	for _, mount := range as.Spec.GetMounts() {
		for _, vol := range release.GetSpec().GetVolumes() {
			if mount.Type == "volume" && vol.Name == mount.Source {
				as.Volumes = append(as.Volumes, vol)
			}
		}
	}
	return as
}

// config finds the content that a version was made with, in the newest
// release that has it.
func (a assigner) config(svc *api.Service, ref *api.FileRef) *api.ConfigSpec {
	all := a.view.Releases(svc.Stack)
	for i := len(all) - 1; i >= 0; i-- {
		for _, c := range all[i].Spec.Configs {
			if c.Name == ref.Name && c.Digest == ref.Digest {
				return c
			}
		}
	}
	a.log.Error("a config's content is not kept any more", "service", svc.Id, "config", ref.Name)
	return nil
}

func (a assigner) secret(svc *api.Service, ref *api.FileRef) *api.TaskFile {
	for _, stack := range []string{svc.Stack, ""} {
		for _, s := range a.view.SecretValues(stack, ref.Name) {
			if s.Digest != ref.Digest {
				continue
			}
			value, err := a.open(state.SecretID(stack, ref.Name), s.Sealed)
			if err != nil {
				a.log.Error("a secret can't be read", "service", svc.Id, "secret", ref.Name, "error", err)
				return nil
			}
			return &api.TaskFile{Name: ref.Name, Path: ref.Path, Mode: ref.Mode, Content: value, Secret: true}
		}
	}
	return nil
}

package state

import (
	"google.golang.org/protobuf/proto"

	"orch/engine/api"
	"orch/engine/spec"
)

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

package spec

import (
	"encoding/json"
	"fmt"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"orch/engine/api"
)

// Diff lists the fields in which two messages of one type differ, in the
// schema's order. A nil message counts as an empty one. Lists of messages
// are matched by their key (name, target, service or path; else position),
// maps by key, other lists as a whole. Origins don't count; each change
// carries the nearest one of the new side, else of the old.
func Diff(old, new proto.Message) []*api.FieldChange {
	d := differ{}
	d.message("", old.ProtoReflect(), new.ProtoReflect(), "")
	return d.changes
}

type differ struct{ changes []*api.FieldChange }

func (d *differ) add(path, old, new, origin string) {
	d.changes = append(d.changes, &api.FieldChange{Path: path, Old: old, New: new, Origin: origin})
}

func (d *differ) message(path string, old, new protoreflect.Message, origin string) {
	if o := originOf(new); o != "" {
		origin = o
	} else if o := originOf(old); o != "" {
		origin = o
	}
	for _, f := range byNumber(new.Descriptor().Fields()) {
		if f.Name() == originField {
			continue
		}
		at := join(path, f)
		a, b := old.Get(f), new.Get(f)
		switch {
		case !has(old, f) && !has(new, f):
		case f.IsMap():
			d.mapping(at, f, a.Map(), b.Map(), origin)
		case f.IsList() && f.Kind() == protoreflect.MessageKind:
			d.list(at, a.List(), b.List(), origin)
		case f.IsList():
			if !a.Equal(b) {
				d.add(at, listText(f, a.List()), listText(f, b.List()), origin)
			}
		case f.Kind() == protoreflect.MessageKind && !isLeaf(f):
			if has(old, f) && has(new, f) {
				d.message(at, a.Message(), b.Message(), origin)
			} else {
				d.add(at, present(old, f), present(new, f), firstOf(originOf(b.Message()), origin))
			}
		default:
			if old.Has(f) != new.Has(f) || !a.Equal(b) {
				d.add(at, present(old, f), present(new, f), origin)
			}
		}
	}
}

func (d *differ) mapping(path string, f protoreflect.FieldDescriptor, old, new protoreflect.Map, origin string) {
	for _, k := range sortedKeys(old) {
		if !new.Has(k) {
			d.add(fmt.Sprintf("%s[%s]", path, k.String()), text(f.MapValue(), old.Get(k)), "", origin)
		}
	}
	for _, k := range sortedKeys(new) {
		was := ""
		if old.Has(k) {
			was = text(f.MapValue(), old.Get(k))
		}
		if is := text(f.MapValue(), new.Get(k)); is != was {
			d.add(fmt.Sprintf("%s[%s]", path, k.String()), was, is, origin)
		}
	}
}

func (d *differ) list(path string, old, new protoreflect.List, origin string) {
	was := map[string]protoreflect.Message{}
	order, names := keys(old), keys(new)
	for i, k := range order {
		was[k] = old.Get(i).Message()
	}
	seen := map[string]bool{}
	for i, k := range names {
		m := new.Get(i).Message()
		seen[k] = true
		at := fmt.Sprintf("%s[%s]", path, k)
		if o, ok := was[k]; ok {
			d.message(at, o, m, origin)
		} else {
			d.add(at, "", messageText(m), firstOf(originOf(m), origin))
		}
	}
	for _, k := range order {
		if !seen[k] {
			d.add(fmt.Sprintf("%s[%s]", path, k), messageText(was[k]), "", origin)
		}
	}
}

// keys names the elements of a list; those after the first of one name get
// its number among them: "80", "80#2".
func keys(l protoreflect.List) []string {
	all := make([]string, l.Len())
	times := map[string]int{}
	for i := range all {
		k := key(l.Get(i).Message(), i)
		if times[k]++; times[k] > 1 {
			k += fmt.Sprintf("#%d", times[k])
		}
		all[i] = k
	}
	return all
}

// key names an element of a list of messages among its siblings.
func key(m protoreflect.Message, i int) string {
	for _, name := range []protoreflect.Name{"name", "target", "service", "path", "port"} {
		if f := m.Descriptor().Fields().ByName(name); f != nil && m.Has(f) {
			k := m.Get(f).String()
			if p := m.Descriptor().Fields().ByName("protocol"); p != nil && m.Get(p).String() == "udp" {
				k += "/udp"
			}
			return k
		}
	}
	return fmt.Sprint(i)
}

func join(path string, f protoreflect.FieldDescriptor) string {
	if path == "" {
		return string(f.Name())
	}
	return path + "." + string(f.Name())
}

func originOf(m protoreflect.Message) string {
	if f := m.Descriptor().Fields().ByName(originField); f != nil {
		return m.Get(f).String()
	}
	return ""
}

func isLeaf(f protoreflect.FieldDescriptor) bool {
	return f.Message().FullName() == "google.protobuf.Duration" || f.Message().FullName() == "google.protobuf.Timestamp"
}

func present(m protoreflect.Message, f protoreflect.FieldDescriptor) string {
	if !has(m, f) {
		return ""
	}
	return text(f, m.Get(f))
}

func listText(f protoreflect.FieldDescriptor, l protoreflect.List) string {
	if l.Len() == 0 {
		return ""
	}
	var all []json.RawMessage
	for i := range l.Len() {
		all = append(all, json.RawMessage(text(f, l.Get(i))))
	}
	return plain(all)
}

// text is one value as JSON.
func text(f protoreflect.FieldDescriptor, v protoreflect.Value) string {
	switch f.Kind() {
	case protoreflect.MessageKind:
		return messageText(v.Message())
	case protoreflect.BytesKind:
		return quote(string(v.Bytes()))
	case protoreflect.StringKind:
		if f.Name() == "params_json" {
			return v.String()
		}
		return quote(v.String())
	}
	return v.String()
}

func messageText(m protoreflect.Message) string {
	c := proto.Clone(m.Interface())
	clearOrigins(c.ProtoReflect())
	b, err := protojson.Marshal(c)
	if err != nil {
		return quote(err.Error())
	}
	// protojson adds spaces at random on purpose; compact them away.
	var raw any
	if json.Unmarshal(b, &raw) != nil {
		return string(b)
	}
	return plain(raw)
}

func clearOrigins(m protoreflect.Message) {
	if f := m.Descriptor().Fields().ByName(originField); f != nil {
		m.Clear(f)
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap() || f.Kind() != protoreflect.MessageKind:
		case f.IsList():
			for i := range v.List().Len() {
				clearOrigins(v.List().Get(i).Message())
			}
		default:
			clearOrigins(v.Message())
		}
		return true
	})
}

func quote(s string) string {
	return plain(s)
}

// plain is JSON for people: what HTML would need escaped isn't.
func plain(v any) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err.Error()
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

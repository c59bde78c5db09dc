package builtins

import (
	"maps"
	"slices"
	"strings"

	"go.starlark.net/starlark"
	"go.starlark.net/starlarkstruct"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	"orch/engine/api"
)

// ServiceStruct has the fields of a service as service() names them: those of
// its task, placement and job beside its own.
func ServiceStruct(s *api.ServiceSpec) *starlarkstruct.Struct {
	return starlarkstruct.FromStringDict(starlark.String("service"), serviceFields(s))
}

func serviceFields(s *api.ServiceSpec) starlark.StringDict {
	d := starlark.StringDict{}
	for _, m := range []protoreflect.Message{s.GetJob().ProtoReflect(), s.GetPlacement().ProtoReflect(), s.GetTask().ProtoReflect(), s.ProtoReflect()} {
		MessageStruct(m).ToStringDict(d)
	}
	for _, flat := range []string{"task", "placement", "job"} {
		delete(d, flat)
	}
	return d
}

// MessageStruct turns a message into a struct with its fields; durations
// become text such as "10s", and maps dicts in the order of their keys.
func MessageStruct(m protoreflect.Message) *starlarkstruct.Struct {
	d := starlark.StringDict{}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		d[string(f.Name())] = fieldValue(m, f)
	}
	return starlarkstruct.FromStringDict(starlark.String(m.Descriptor().Name()), d)
}

func fieldValue(m protoreflect.Message, f protoreflect.FieldDescriptor) starlark.Value {
	v := m.Get(f)
	switch {
	case f.IsMap():
		all := map[string]starlark.Value{}
		v.Map().Range(func(k protoreflect.MapKey, x protoreflect.Value) bool {
			all[k.String()] = plainValue(f.MapValue(), x)
			return true
		})
		d := starlark.NewDict(len(all))
		for _, k := range slices.Sorted(maps.Keys(all)) {
			d.SetKey(starlark.String(k), all[k])
		}
		return d
	case f.IsList():
		l := starlark.NewList(nil)
		for i := range v.List().Len() {
			l.Append(plainValue(f, v.List().Get(i)))
		}
		return l
	case f.Kind() == protoreflect.MessageKind && !m.Has(f):
		return starlark.None
	}
	return plainValue(f, v)
}

func plainValue(f protoreflect.FieldDescriptor, v protoreflect.Value) starlark.Value {
	switch x := v.Interface().(type) {
	case bool:
		return starlark.Bool(x)
	case int32:
		return starlark.MakeInt(int(x))
	case int64:
		return starlark.MakeInt64(x)
	case uint32:
		return starlark.MakeUint64(uint64(x))
	case uint64:
		return starlark.MakeUint64(x)
	case float64:
		return starlark.Float(x)
	case []byte:
		return starlark.String(x)
	case protoreflect.Message:
		if d, ok := x.Interface().(*durationpb.Duration); ok {
			return starlark.String(DurationText(d))
		}
		return MessageStruct(x)
	}
	return starlark.String(v.String())
}

// DurationText is "5m" where Go says "5m0s".
func DurationText(d *durationpb.Duration) string {
	s := d.AsDuration().String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

package playtest

import (
	"strings"

	"go.starlark.net/starlark"
	"go.starlark.net/starlarkstruct"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	"orch/engine/api"
)

// serviceStruct has the fields of a service as service() names them: those of
// its task, placement and job beside its own.
func serviceStruct(s *api.ServiceSpec) *starlarkstruct.Struct {
	d := starlark.StringDict{}
	for _, m := range []protoreflect.Message{s.GetJob().ProtoReflect(), s.GetPlacement().ProtoReflect(), s.GetTask().ProtoReflect(), s.ProtoReflect()} {
		messageStruct(m).ToStringDict(d)
	}
	for _, flat := range []string{"task", "placement", "job"} {
		delete(d, flat)
	}
	return starlarkstruct.FromStringDict(starlark.String("service"), d)
}

// messageStruct turns a message into a struct with its fields; durations
// become text such as "10s".
func messageStruct(m protoreflect.Message) *starlarkstruct.Struct {
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
		d := starlark.NewDict(v.Map().Len())
		v.Map().Range(func(k protoreflect.MapKey, x protoreflect.Value) bool {
			d.SetKey(starlark.String(k.String()), value(f.MapValue(), x))
			return true
		})
		return d
	case f.IsList():
		l := starlark.NewList(nil)
		for i := range v.List().Len() {
			l.Append(value(f, v.List().Get(i)))
		}
		return l
	case f.Kind() == protoreflect.MessageKind && !m.Has(f):
		return starlark.None
	}
	return value(f, v)
}

func value(f protoreflect.FieldDescriptor, v protoreflect.Value) starlark.Value {
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
			return starlark.String(durationText(d))
		}
		return messageStruct(x)
	}
	return starlark.String(v.String())
}

// durationText is "5m" where Go says "5m0s".
func durationText(d *durationpb.Duration) string {
	s := d.AsDuration().String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

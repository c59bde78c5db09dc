package script

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"pgregory.net/rapid"
)

// Words are what Random puts into strings: names and ids that a small world
// has, and some that nothing has.
var Words = []string{
	"", "a", "b", "app", "web", "db", "app/web", "app/db", "app/web.1", "app/web.2", "app/web.1#1", "app/web.1#2", "app/db.1#1",
	"app/web~1", "v1", "v2", "agent", "engine", "admin", "running", "up", "down", "drain", "stop", "start", "remove", "pause", "resume", "abort", "replicated",
	"global", "job", "succeeded", "rollback", "forward", "replace", "wait_healthy", "25%", "node.labels.x == a", "a\x00b", "é~9", "/", "@", "#",
}

// Random fills m with drawn values, messages within messages to a depth.
func Random(t *rapid.T, m proto.Message, depth int) { fill(t, m.ProtoReflect(), depth) }

func fill(t *rapid.T, m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if f.Kind() == protoreflect.MessageKind && depth == 0 && !f.IsMap() || rapid.IntRange(0, 2).Draw(t, "set") == 0 {
			continue
		}
		switch {
		case f.IsMap():
			for range rapid.IntRange(0, 2).Draw(t, "entries") {
				if f.MapValue().Kind() != protoreflect.MessageKind {
					m.Mutable(f).Map().Set(scalar(t, f.MapKey()).MapKey(), scalar(t, f.MapValue()))
				}
			}
		case f.IsList():
			for range rapid.IntRange(0, 3).Draw(t, "elements") {
				list := m.Mutable(f).List()
				if f.Kind() == protoreflect.MessageKind {
					fill(t, list.AppendMutable().Message(), depth-1)
				} else {
					list.Append(scalar(t, f))
				}
			}
		case f.Kind() == protoreflect.MessageKind:
			fill(t, m.Mutable(f).Message(), depth-1)
		default:
			m.Set(f, scalar(t, f))
		}
	}
}

func scalar(t *rapid.T, f protoreflect.FieldDescriptor) protoreflect.Value {
	n := rapid.IntRange(0, 9).Draw(t, "number")
	switch f.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(rapid.SampledFrom(Words).Draw(t, "word"))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte{byte(n), 0xff})
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(n > 4)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(n + 1))
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(float64(n) / 4)
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(int32(n) - 2)
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(int64(n) - 2)
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(n))
	}
	return protoreflect.ValueOfUint64(uint64(n))
}

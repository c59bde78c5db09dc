package main

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	"orch/engine/api"
)

// fill sets fields of m at random, whatever the schema has.
func fill(t *rapid.T, m protoreflect.Message, depth int) {
	for i := range m.Descriptor().Fields().Len() {
		f := m.Descriptor().Fields().Get(i)
		if rapid.IntRange(0, 2).Draw(t, "set") == 0 || f.Kind() == protoreflect.MessageKind && depth == 0 {
			continue
		}
		switch {
		case f.IsMap():
			for range rapid.IntRange(0, 3).Draw(t, "entries") {
				key := protoreflect.ValueOfString(rapid.String().Draw(t, "key")).MapKey()
				m.Mutable(f).Map().Set(key, protoreflect.ValueOfString(rapid.String().Draw(t, "text")))
			}
		case f.IsList():
			for range rapid.IntRange(0, 3).Draw(t, "items") {
				m.Mutable(f).List().Append(draw(t, f, m.Mutable(f).List().NewElement(), depth))
			}
		default:
			m.Set(f, draw(t, f, m.NewField(f), depth))
		}
	}
}

func draw(t *rapid.T, f protoreflect.FieldDescriptor, empty protoreflect.Value, depth int) protoreflect.Value {
	switch f.Kind() {
	case protoreflect.MessageKind:
		if _, ok := empty.Message().Interface().(*durationpb.Duration); ok {
			d := durationpb.New(rapid.SampledFrom([]time.Duration{0, 1, -1, 1500e6, 10e9, -2500e6, 1e3, -1e9}).Draw(t, "duration"))
			return protoreflect.ValueOfMessage(d.ProtoReflect())
		}
		fill(t, empty.Message(), depth-1)
		return empty
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(rapid.String().Draw(t, "text"))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes"))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(rapid.Float64Range(0, 1).Draw(t, "number"))
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(rapid.Int32().Draw(t, "number"))
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(rapid.Uint32().Draw(t, "number"))
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(rapid.Uint64().Draw(t, "number"))
	}
	return protoreflect.ValueOfInt64(rapid.Int64().Draw(t, "number"))
}

func TestSpecIsWhatProtojsonWrites(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		spec := &api.StackSpec{}
		fill(t, spec.ProtoReflect(), 3)
		spec.Name = "s"
		b, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(spec)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := printSpec(&out, spec); err != nil {
			t.Fatal(err)
		}
		var want, got any
		if err := json.Unmarshal(b, &want); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(out.Bytes(), &got); err != nil {
			t.Fatalf("%v in %s", err, out.String())
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
		back := &api.StackSpec{}
		if err := protojson.Unmarshal(out.Bytes(), back); err != nil || !proto.Equal(back, spec) {
			t.Fatalf("it reads back as another spec: %v", err)
		}
	})
}

package spec

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"math"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"orch/engine/api"
)

// Version identifies what a service's tasks run: 12 hex digits of Hash.
func Version(t *api.TaskSpec) string { return Hash(t)[:12] }

// Hash is a SHA-256 in hex over m's set fields in the order of their
// numbers, each as number, kind and value; map entries by key. A field that
// has its zero value counts as absent, and so does a message in which nothing
// is set, so a field added to the schema later changes no hash. A duration of
// zero isn't absent: it was asked for. Fields named `origin` are left out.
func Hash(m proto.Message) string {
	h := hasher{Hash: sha256.New()}
	h.message(m.ProtoReflect())
	return hex.EncodeToString(h.Sum(nil))
}

type hasher struct {
	hash.Hash
	buf [9]byte
}

func (h *hasher) uint(kind byte, v uint64) {
	h.buf[0] = kind
	binary.BigEndian.PutUint64(h.buf[1:], v)
	h.Write(h.buf[:])
}

func (h *hasher) bytes(kind byte, b []byte) {
	h.uint(kind, uint64(len(b)))
	h.Write(b)
}

func (h *hasher) message(m protoreflect.Message) {
	fields := m.Descriptor().Fields()
	for _, f := range byNumber(fields) {
		if f.Name() == originField || !has(m, f) {
			continue
		}
		h.uint('f', uint64(f.Number()))
		v := m.Get(f)
		switch {
		case f.IsMap():
			h.mapping(f, v.Map())
		case f.IsList():
			list := v.List()
			h.uint('l', uint64(list.Len()))
			for i := range list.Len() {
				h.value(f, list.Get(i))
			}
		default:
			h.value(f, v)
		}
	}
	h.uint('e', 0)
}

func (h *hasher) mapping(f protoreflect.FieldDescriptor, m protoreflect.Map) {
	h.uint('m', uint64(m.Len()))
	for _, k := range sortedKeys(m) {
		h.value(f.MapKey(), k.Value())
		h.value(f.MapValue(), m.Get(k))
	}
}

func (h *hasher) value(f protoreflect.FieldDescriptor, v protoreflect.Value) {
	switch f.Kind() {
	case protoreflect.MessageKind:
		h.message(v.Message())
	case protoreflect.StringKind:
		h.bytes('s', []byte(v.String()))
	case protoreflect.BytesKind:
		h.bytes('b', v.Bytes())
	case protoreflect.BoolKind:
		n := uint64(0)
		if v.Bool() {
			n = 1
		}
		h.uint('t', n)
	case protoreflect.DoubleKind, protoreflect.FloatKind:
		h.uint('d', math.Float64bits(v.Float()))
	case protoreflect.EnumKind:
		h.uint('n', uint64(v.Enum()))
	case protoreflect.Uint32Kind, protoreflect.Uint64Kind, protoreflect.Fixed32Kind, protoreflect.Fixed64Kind:
		h.uint('u', v.Uint())
	default:
		h.uint('i', uint64(v.Int()))
	}
}

const originField = "origin"

// has says that a field counts as present.
func has(m protoreflect.Message, f protoreflect.FieldDescriptor) bool {
	if !m.Has(f) || f.IsList() || f.IsMap() || f.Kind() != protoreflect.MessageKind || isLeaf(f) {
		return m.Has(f)
	}
	part := m.Get(f).Message()
	for _, g := range byNumber(part.Descriptor().Fields()) {
		if g.Name() != originField && has(part, g) {
			return true
		}
	}
	return false
}

// byNumber lists the fields in the order of their numbers; schemas declare
// them so already, except where one was added late.
func byNumber(fields protoreflect.FieldDescriptors) []protoreflect.FieldDescriptor {
	list := make([]protoreflect.FieldDescriptor, fields.Len())
	for i := range list {
		list[i] = fields.Get(i)
	}
	slices.SortFunc(list, func(a, b protoreflect.FieldDescriptor) int { return int(a.Number()) - int(b.Number()) })
	return list
}

func sortedKeys(m protoreflect.Map) []protoreflect.MapKey {
	keys := make([]protoreflect.MapKey, 0, m.Len())
	m.Range(func(k protoreflect.MapKey, _ protoreflect.Value) bool {
		keys = append(keys, k)
		return true
	})
	slices.SortFunc(keys, func(a, b protoreflect.MapKey) int {
		if a.String() < b.String() {
			return -1
		}
		return 1
	})
	return keys
}

package main

import (
	"encoding/base64"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	"orch/engine/api"
)

// usual bytes of a service's JSON.
const usual = 2 << 10

// printSpec writes a spec as indented JSON: protobuf's JSON mapping with the
// schema's names, map keys sorted, always in the same way. protojson with
// json.Indent writes the same at half the speed, which a playbook of ten
// thousand services shows. Services are encoded side by side.
func printSpec(to io.Writer, spec *api.StackSpec) error {
	parts := runtime.GOMAXPROCS(0)
	texts := make([][]byte, parts)
	var work sync.WaitGroup
	for p := range parts {
		work.Go(func() {
			mine := spec.Services[len(spec.Services)*p/parts : len(spec.Services)*(p+1)/parts]
			e := specEncoder{fields: map[protoreflect.FullName][]protoreflect.FieldDescriptor{}}
			e.out = make([]byte, 0, usual*len(mine))
			for _, s := range mine {
				e.out = append(e.out, "    "...)
				e.message(s.ProtoReflect(), 2)
				e.out = append(e.out, ",\n"...)
			}
			texts[p] = e.out
		})
	}
	work.Wait()
	rest := &api.StackSpec{
		Name: spec.Name, Networks: spec.Networks, Volumes: spec.Volumes, Secrets: spec.Secrets, Configs: spec.Configs,
		OnFailure: spec.OnFailure, MaxParallel: spec.MaxParallel, Labels: spec.Labels, Origin: spec.Origin,
	}
	e := specEncoder{fields: map[protoreflect.FullName][]protoreflect.FieldDescriptor{}}
	e.message(rest.ProtoReflect(), 0)
	if len(spec.Services) == 0 {
		_, err := to.Write(append(e.out, '\n'))
		return err
	}
	// The name is never empty, so there is something before the comma.
	if _, err := to.Write(append(e.out[:len(e.out)-len("\n}")], ",\n  \"services\": [\n"...)); err != nil {
		return err
	}
	texts[parts-1] = texts[parts-1][:len(texts[parts-1])-len(",\n")]
	for _, text := range append(texts, []byte("\n  ]\n}\n")) {
		if _, err := to.Write(text); err != nil {
			return err
		}
	}
	return nil
}

type specEncoder struct {
	out    []byte
	fields map[protoreflect.FullName][]protoreflect.FieldDescriptor
}

func (e *specEncoder) line(depth int) {
	e.out = append(e.out, '\n')
	for range depth {
		e.out = append(e.out, "  "...)
	}
}

// message writes m, whose first line stands at depth already.
func (e *specEncoder) message(m protoreflect.Message, depth int) {
	if d, ok := m.Interface().(*durationpb.Duration); ok {
		e.duration(d)
		return
	}
	e.out = append(e.out, '{')
	first := true
	for _, f := range e.fieldsOf(m.Descriptor()) {
		if !m.Has(f) {
			continue
		}
		if !first {
			e.out = append(e.out, ',')
		}
		first = false
		e.line(depth + 1)
		e.text(string(f.Name()))
		e.out = append(e.out, ": "...)
		e.field(f, m.Get(f), depth+1)
	}
	if !first {
		e.line(depth)
	}
	e.out = append(e.out, '}')
}

func (e *specEncoder) fieldsOf(d protoreflect.MessageDescriptor) []protoreflect.FieldDescriptor {
	known, ok := e.fields[d.FullName()]
	if !ok {
		for i := range d.Fields().Len() {
			known = append(known, d.Fields().Get(i))
		}
		e.fields[d.FullName()] = known
	}
	return known
}

func (e *specEncoder) field(f protoreflect.FieldDescriptor, v protoreflect.Value, depth int) {
	switch {
	case f.IsMap():
		keys := make([]string, 0, v.Map().Len())
		v.Map().Range(func(k protoreflect.MapKey, _ protoreflect.Value) bool {
			keys = append(keys, k.String())
			return true
		})
		slices.Sort(keys)
		e.out = append(e.out, '{')
		for i, k := range keys {
			e.item(i, depth)
			e.text(k)
			e.out = append(e.out, ": "...)
			e.value(f.MapValue(), v.Map().Get(protoreflect.ValueOfString(k).MapKey()), depth+1)
		}
		e.line(depth)
		e.out = append(e.out, '}')
	case f.IsList():
		e.out = append(e.out, '[')
		for i := range v.List().Len() {
			e.item(i, depth)
			e.value(f, v.List().Get(i), depth+1)
		}
		e.line(depth)
		e.out = append(e.out, ']')
	default:
		e.value(f, v, depth)
	}
}

func (e *specEncoder) item(i, depth int) {
	if i > 0 {
		e.out = append(e.out, ',')
	}
	e.line(depth + 1)
}

func (e *specEncoder) value(f protoreflect.FieldDescriptor, v protoreflect.Value, depth int) {
	switch f.Kind() {
	case protoreflect.MessageKind:
		e.message(v.Message(), depth)
	case protoreflect.StringKind:
		e.text(v.String())
	case protoreflect.BytesKind:
		e.out = append(e.out, '"')
		e.out = base64.StdEncoding.AppendEncode(e.out, v.Bytes())
		e.out = append(e.out, '"')
	case protoreflect.BoolKind:
		e.out = strconv.AppendBool(e.out, v.Bool())
	case protoreflect.DoubleKind:
		e.out = strconv.AppendFloat(e.out, v.Float(), 'g', -1, 64)
	case protoreflect.Int32Kind:
		e.out = strconv.AppendInt(e.out, v.Int(), 10)
	case protoreflect.Uint32Kind:
		e.out = strconv.AppendUint(e.out, v.Uint(), 10)
	case protoreflect.Int64Kind, protoreflect.Uint64Kind: // text, as JSON's numbers lose digits
		e.text(v.String())
	default:
		panic(fmt.Sprintf("no JSON for %s", f.FullName())) // the schema of specs has no such field
	}
}

// duration writes seconds with as many digits as they need: "1.5s" as "1.500s".
func (e *specEncoder) duration(d *durationpb.Duration) {
	text := strconv.FormatInt(d.Seconds, 10)
	if n := d.Nanos; n != 0 {
		if n < 0 {
			n = -n
			if d.Seconds == 0 {
				text = "-0"
			}
		}
		digits := fmt.Sprintf("%09d", n)
		for strings.HasSuffix(digits, "000") {
			digits = digits[:len(digits)-3]
		}
		text += "." + digits
	}
	e.text(text + "s")
}

// text writes a JSON string.
func (e *specEncoder) text(s string) {
	const hex = "0123456789abcdef"
	e.out = append(e.out, '"')
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			if r, size := utf8.DecodeRuneInString(s[i:]); r != utf8.RuneError || size > 1 {
				i += size
				continue
			}
		}
		e.out = append(e.out, s[from:i]...)
		switch {
		case c == '"' || c == '\\':
			e.out = append(e.out, '\\', c)
		case c == '\n':
			e.out = append(e.out, `\n`...)
		case c == '\t':
			e.out = append(e.out, `\t`...)
		case c >= utf8.RuneSelf:
			e.out = append(e.out, `\ufffd`...)
		default:
			e.out = append(e.out, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
		i++
		from = i
	}
	e.out = append(append(e.out, s[from:]...), '"')
}

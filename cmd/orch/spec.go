package main

import (
	"bytes"
	"encoding/json"
	"io"
	"runtime"
	"sync"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"orch/engine/api"
)

// printSpec writes a spec as indented JSON, always in the same way. A large
// one is mostly services, so these are encoded side by side.
func printSpec(to io.Writer, spec *api.StackSpec) error {
	rest := &api.StackSpec{
		Name: spec.Name, Networks: spec.Networks, Volumes: spec.Volumes, Secrets: spec.Secrets, Configs: spec.Configs,
		OnFailure: spec.OnFailure, MaxParallel: spec.MaxParallel, Labels: spec.Labels, Origin: spec.Origin,
	}
	text, err := indented(rest, "")
	if err != nil {
		return err
	}
	if len(spec.Services) > 0 {
		services, err := encodeServices(spec.Services)
		if err != nil {
			return err
		}
		// The name comes first, so the object isn't empty.
		text = append(bytes.TrimSuffix(text, []byte("\n}")), ",\n  \"services\": [\n    "...)
		text = append(append(text, services...), "\n  ]\n}"...)
	}
	_, err = to.Write(append(text, '\n'))
	return err
}

func indented(m proto.Message, prefix string) ([]byte, error) {
	b, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = json.Indent(&out, b, prefix, "  ")
	return out.Bytes(), err
}

// encodeServices joins the services' JSON, each part made on a core of its own.
func encodeServices(all []*api.ServiceSpec) ([]byte, error) {
	parts := runtime.GOMAXPROCS(0)
	texts, errs := make([]bytes.Buffer, parts), make([]error, parts)
	var work sync.WaitGroup
	for p := range parts {
		work.Go(func() {
			for _, s := range all[len(all)*p/parts : len(all)*(p+1)/parts] {
				b, err := indented(s, "    ")
				if err != nil {
					errs[p] = err
					return
				}
				texts[p].Write(b)
				texts[p].WriteString(",\n    ")
			}
		})
	}
	work.Wait()
	var out []byte
	for p := range parts {
		if errs[p] != nil {
			return nil, errs[p]
		}
		out = append(out, texts[p].Bytes()...)
	}
	return bytes.TrimSuffix(out, []byte(",\n    ")), nil
}

package playtest

import (
	"go.starlark.net/starlarkstruct"
	"google.golang.org/protobuf/reflect/protoreflect"

	"orch/builtins"
	"orch/engine/api"
)

// serviceStruct has the fields of a service as service() names them.
func serviceStruct(s *api.ServiceSpec) *starlarkstruct.Struct { return builtins.ServiceStruct(s) }

// messageStruct turns a message into a struct with its fields.
func messageStruct(m protoreflect.Message) *starlarkstruct.Struct { return builtins.MessageStruct(m) }

package state

import (
	"google.golang.org/protobuf/reflect/protoreflect"

	"orch/engine/api"
)

// CommandSet is the newest command set that this binary knows.
const CommandSet = 3

// sets says to which command set each kind belongs. A kind that is added
// later belongs to the next set, and CommandSet is raised with it.
var sets = map[protoreflect.Name]uint32{
	"put_cluster": 1, "set_cluster": 1,
	"put_node": 3, "set_node": 3, "remove_node": 1,
	"put_release": 3, "set_stack": 1, "signal_rollout": 2, // a release is one thing since 2, networks have addresses since 3
	"put_secret": 1, "remove_secret": 1,
	"put_token": 1, "remove_tokens": 1,
	"put_operator": 1, "remove_operator": 1,
	"changes": 3, "reports": 1,
}

// Set is the command set that every voter has to know before c may be
// proposed: compare it with Cluster.version. A command of no kind, or of one
// that this binary doesn't know, belongs to a set that nobody knows.
func Set(c *api.Command) uint32 {
	m := c.ProtoReflect()
	kind := m.WhichOneof(m.Descriptor().Oneofs().ByName("kind"))
	if kind == nil || sets[kind.Name()] == 0 {
		return CommandSet + 1
	}
	return sets[kind.Name()]
}

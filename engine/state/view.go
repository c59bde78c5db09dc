package state

import (
	"github.com/hashicorp/go-memdb"

	"orch/engine/api"
)

// View is the state at one moment. Lists come in the order of their ids.
// The zero index is the state before the first entry.
type View struct {
	txn   *memdb.Txn
	index uint64
}

// Index is that of the newest log entry that the view shows.
func (v View) Index() uint64 { return v.index }

// Cluster is nil before the cluster was made.
func (v View) Cluster() *api.Cluster { return get[*api.Cluster](v, clusterTable, "cluster") }

// Node and the accessors below return nil where there is no such row.
func (v View) Node(id string) *api.Node { return get[*api.Node](v, nodeTable, id) }

func (v View) Nodes() []*api.Node { return list[*api.Node](v, nodeTable, idIndex+"_prefix", "") }

func (v View) Stack(name string) *api.Stack { return get[*api.Stack](v, stackTable, name) }

func (v View) Stacks() []*api.Stack { return list[*api.Stack](v, stackTable, idIndex+"_prefix", "") }

func (v View) Release(stack string, number uint64) *api.Release {
	return get[*api.Release](v, releaseTable, releaseID(stack, number))
}

// Releases lists a stack's kept releases, oldest first.
func (v View) Releases(stack string) []*api.Release {
	return list[*api.Release](v, releaseTable, idIndex+"_prefix", stack+":")
}

func (v View) Service(id string) *api.Service { return get[*api.Service](v, serviceTable, id) }

func (v View) Services() []*api.Service {
	return list[*api.Service](v, serviceTable, idIndex+"_prefix", "")
}

func (v View) ServicesOf(stack string) []*api.Service {
	return list[*api.Service](v, serviceTable, byStackName, stack)
}

func (v View) Version(service, hash string) *api.Version {
	return get[*api.Version](v, versionTable, VersionID(service, hash))
}

func (v View) versionsOf(service string) []*api.Version {
	return list[*api.Version](v, versionTable, idIndex+"_prefix", service+"@")
}

func (v View) Slot(id string) *api.Slot { return get[*api.Slot](v, slotTable, id) }

func (v View) SlotsOf(service string) []*api.Slot {
	return list[*api.Slot](v, slotTable, byServiceName, service)
}

func (v View) Task(id string) *api.Task { return get[*api.Task](v, taskTable, id) }

func (v View) Tasks() []*api.Task { return list[*api.Task](v, taskTable, idIndex+"_prefix", "") }

func (v View) TasksOf(service string) []*api.Task {
	return list[*api.Task](v, taskTable, byServiceName, service)
}

func (v View) TasksOn(node string) []*api.Task {
	return list[*api.Task](v, taskTable, byNodeName, node)
}

func (v View) Rollout(id string) *api.Rollout { return get[*api.Rollout](v, rolloutTable, id) }

func (v View) RolloutsOf(service string) []*api.Rollout {
	return list[*api.Rollout](v, rolloutTable, byServiceName, service)
}

// Secret finds a value by its id, see SecretID.
func (v View) Secret(id string) *api.SecretValue { return get[*api.SecretValue](v, secretTable, id) }

func (v View) Secrets() []*api.SecretValue {
	return list[*api.SecretValue](v, secretTable, idIndex+"_prefix", "")
}

func (v View) Bundle(hash string) *api.Bundle { return get[*api.Bundle](v, bundleTable, hash) }

func (v View) bundles() []*api.Bundle {
	return list[*api.Bundle](v, bundleTable, idIndex+"_prefix", "")
}

// Token finds a join token by its id.
func (v View) Token(id string) *api.JoinToken { return get[*api.JoinToken](v, tokenTable, id) }

func (v View) Tokens() []*api.JoinToken {
	return list[*api.JoinToken](v, tokenTable, idIndex+"_prefix", "")
}

// Operator finds an operator by name.
func (v View) Operator(name string) *api.Operator { return get[*api.Operator](v, operatorTable, name) }

func (v View) Operators() []*api.Operator {
	return list[*api.Operator](v, operatorTable, idIndex+"_prefix", "")
}

func get[T any](v View, table, id string) T {
	var none T
	row, err := v.txn.First(table, idIndex, id)
	if err != nil {
		panic(err) // a table or index that the schema lacks
	}
	if row == nil {
		return none
	}
	return row.(T)
}

func list[T any](v View, table, index, key string) []T {
	rows, err := v.txn.Get(table, index, key)
	if err != nil {
		panic(err)
	}
	var all []T
	for row := rows.Next(); row != nil; row = rows.Next() {
		all = append(all, row.(T))
	}
	return all
}

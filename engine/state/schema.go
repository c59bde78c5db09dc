package state

import (
	"fmt"
	"strings"

	"github.com/hashicorp/go-memdb"

	"orch/engine/api"
)

// The tables. Each row is a message of engine/api.
const (
	clusterTable  = "cluster"
	nodeTable     = "node"
	stackTable    = "stack"
	releaseTable  = "release"
	serviceTable  = "service"
	versionTable  = "version"
	slotTable     = "slot"
	taskTable     = "task"
	rolloutTable  = "rollout"
	secretTable   = "secret"
	bundleTable   = "bundle"
	tokenTable    = "token"
	operatorTable = "operator"
	networkTable  = "network"
	idIndex       = "id"
	byServiceName = "service"
	byNodeName    = "node"
	byStackName   = "stack"
	byAddress     = "address"
)

// index reads a key from a row; an empty one leaves the row out.
type index func(row any) string

// FromObject and the two below implement memdb.Indexer without reflection.
func (f index) FromObject(row any) (bool, []byte, error) {
	key := f(row)
	return key != "", append([]byte(key), 0), nil
}

func (f index) FromArgs(args ...any) ([]byte, error) {
	key, ok := args[0].(string)
	if !ok || len(args) != 1 {
		return nil, fmt.Errorf("want one string, got %v", args)
	}
	return append([]byte(key), 0), nil
}

func (f index) PrefixFromArgs(args ...any) ([]byte, error) {
	key, err := f.FromArgs(args...)
	return key[:len(key)-1], err
}

// indexes reads any number of keys from a row.
type indexes func(row any) []string

// FromObject and the one below implement memdb.MultiIndexer.
func (f indexes) FromObject(row any) (bool, [][]byte, error) {
	var all [][]byte
	for _, key := range f(row) {
		all = append(all, append([]byte(key), 0))
	}
	return len(all) > 0, all, nil
}

func (f indexes) FromArgs(args ...any) ([]byte, error) { return index(nil).FromArgs(args...) }

func table[T any](name string, id func(T) string, others map[string]func(T) string) *memdb.TableSchema {
	t := &memdb.TableSchema{Name: name, Indexes: map[string]*memdb.IndexSchema{
		idIndex: {Name: idIndex, Unique: true, Indexer: index(func(row any) string { return id(row.(T)) })},
	}}
	for name, key := range others {
		t.Indexes[name] = &memdb.IndexSchema{Name: name, AllowMissing: true, Indexer: index(func(row any) string { return key(row.(T)) })}
	}
	return t
}

func schema() *memdb.DBSchema {
	s := &memdb.DBSchema{Tables: map[string]*memdb.TableSchema{}}
	for _, t := range []*memdb.TableSchema{
		table(clusterTable, func(*api.Cluster) string { return "cluster" }, nil),
		table(nodeTable, (*api.Node).GetId, nil),
		table(stackTable, (*api.Stack).GetName, nil),
		table(releaseTable, func(r *api.Release) string { return releaseID(r.Stack, r.Number) }, nil),
		table(serviceTable, (*api.Service).GetId, map[string]func(*api.Service) string{byStackName: (*api.Service).GetStack}),
		table(versionTable, (*api.Version).GetId, nil),
		table(slotTable, (*api.Slot).GetId, map[string]func(*api.Slot) string{byServiceName: (*api.Slot).GetServiceId}),
		table(taskTable, (*api.Task).GetId, map[string]func(*api.Task) string{
			byServiceName: (*api.Task).GetServiceId, byNodeName: (*api.Task).GetNodeId}),
		table(rolloutTable, (*api.Rollout).GetId, map[string]func(*api.Rollout) string{byServiceName: (*api.Rollout).GetServiceId}),
		table(secretTable, (*api.SecretValue).GetId, nil),
		table(bundleTable, (*api.Bundle).GetHash, nil),
		table(tokenTable, (*api.JoinToken).GetId, nil),
		table(operatorTable, (*api.Operator).GetName, nil),
		table(networkTable, (*api.Network).GetId, nil),
	} {
		s.Tables[t.Name] = t
	}
	for _, name := range []string{taskTable, serviceTable} {
		s.Tables[name].Indexes[byAddress] = &memdb.IndexSchema{Name: byAddress, AllowMissing: true, Indexer: indexes(addressesOf)}
	}
	return s
}

// Ids are made in one place so that they sort and read alike.

func releaseID(stack string, number uint64) string { return fmt.Sprintf("%s:%016x", stack, number) }

// VersionID names a version of a service.
func VersionID(service, hash string) string { return service + "@" + hash }

// SlotID names a slot: "tick/influxdb.1".
func SlotID(service, key string) string { return service + "." + key }

// TaskID names an attempt: "tick/influxdb.1#3".
func TaskID(slot string, attempt uint64) string { return fmt.Sprintf("%s#%d", slot, attempt) }

// RolloutID names a rollout of a service: "tick/influxdb~2".
func RolloutID(service string, number int) string { return fmt.Sprintf("%s~%d", service, number) }

// beside marks the second slot of a global service on one node, which is
// there while a surge is, or after it was adopted.
const beside = "+"

// SlotNode is the name of the node that a slot of a global service is for.
func SlotNode(s *api.Slot) string { return strings.TrimSuffix(s.Key, beside) }

// OtherKey is the key of the other slot of a global service on its node.
func OtherKey(key string) string {
	if node, ok := strings.CutSuffix(key, beside); ok {
		return node
	}
	return key + beside
}

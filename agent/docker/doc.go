// Package docker runs tasks as containers of the Docker daemon on this node;
// it is the only importer of Docker's client.
//
// It holds no state that matters: containers, networks and volumes carry the
// labels below, and are found by them after a restart of the agent. What it
// caches (images seen, networks made) only saves round trips, and is dropped
// as soon as Docker disagrees. A Runtime may be used from any goroutine.
package docker

// Labels on everything that is made here. A service's own labels stand
// beside them; those that begin with "orch." can't be set by a playbook.
const (
	labelCluster  = "orch.cluster"
	labelTask     = "orch.task"
	labelVersion  = "orch.version"
	labelStack    = "orch.stack"
	labelService  = "orch.service"
	labelSlot     = "orch.slot"
	labelNode     = "orch.node"
	labelNetwork  = "orch.network"
	labelVolume   = "orch.volume"
	labelOnRemove = "orch.on_remove"
)

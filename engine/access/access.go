// Package access says who may call which method. It goes by the replicated
// record, not by what stands in a certificate: who is demoted or removed is
// so at once.
package access

import (
	"fmt"
	"slices"

	"connectrpc.com/connect"

	"orch/engine/api"
	"orch/engine/api/apiconnect"
	"orch/engine/ca"
	"orch/engine/state"
)

// caller is what one must be.
type caller int

const (
	anyone     caller = iota // it brings a token
	viewer                   // an operator
	deployer                 // an operator that may change stacks
	admin                    // an operator that may change the cluster
	itself                   // an operator, also with a certificate that ended
	node                     // any node
	engineNode               // a node that is an engine
	keyholder                // a node, also with a certificate that ended
)

// rules has every method: one that isn't there is nobody's.
var rules = map[string]caller{
	apiconnect.ClusterServiceInfoProcedure:           viewer,
	apiconnect.ClusterServiceWatchStackProcedure:     viewer,
	apiconnect.ClusterServiceWatchRolloutProcedure:   viewer,
	apiconnect.ClusterServiceListStacksProcedure:     viewer,
	apiconnect.ClusterServiceListReleasesProcedure:   viewer,
	apiconnect.ClusterServiceListTasksProcedure:      viewer,
	apiconnect.ClusterServiceListServicesProcedure:   viewer,
	apiconnect.ClusterServiceListNodesProcedure:      viewer,
	apiconnect.ClusterServiceInspectServiceProcedure: viewer,
	apiconnect.ClusterServiceInspectNodeProcedure:    viewer,
	apiconnect.ClusterServiceLogsProcedure:           viewer,
	apiconnect.ClusterServiceEventsProcedure:         viewer,
	apiconnect.ClusterServiceListSecretsProcedure:    viewer,
	apiconnect.ClusterServicePlanProcedure:           viewer,
	apiconnect.ClusterServiceListNetworksProcedure:   viewer,
	apiconnect.ClusterServiceCheckNetworksProcedure:  viewer,

	apiconnect.ClusterServiceApplyProcedure:          deployer,
	apiconnect.ClusterServiceSetStackProcedure:       deployer,
	apiconnect.ClusterServiceRollbackStackProcedure:  deployer,
	apiconnect.ClusterServiceScaleServiceProcedure:   deployer,
	apiconnect.ClusterServiceRestartServiceProcedure: deployer,
	apiconnect.ClusterServiceSignalRolloutProcedure:  deployer,
	apiconnect.ClusterServicePutSecretProcedure:      deployer,
	apiconnect.ClusterServiceRemoveSecretProcedure:   deployer,

	apiconnect.ClusterServiceUpdateNodeProcedure:     admin,
	apiconnect.ClusterServiceDeleteNodeProcedure:     admin,
	apiconnect.ClusterServiceRebalanceProcedure:      admin,
	apiconnect.ClusterServiceCreateTokenProcedure:    admin,
	apiconnect.ClusterServiceAdmitProcedure:          admin,
	apiconnect.ClusterServiceRotateCAProcedure:       admin,
	apiconnect.ClusterServiceAutolockProcedure:       admin,
	apiconnect.ClusterServiceUnlockKeyProcedure:      admin,
	apiconnect.ClusterServiceAddOperatorProcedure:    admin,
	apiconnect.ClusterServiceListOperatorsProcedure:  admin,
	apiconnect.ClusterServiceDeleteOperatorProcedure: admin,
	apiconnect.ClusterServiceBackupProcedure:         admin,

	apiconnect.ClusterServiceRenewOperatorProcedure: itself,

	apiconnect.AgentServiceSessionProcedure:     node,
	apiconnect.AgentServicePublishLogsProcedure: node,

	apiconnect.NodeServiceJoinProcedure:     anyone,
	apiconnect.NodeServiceRenewProcedure:    keyholder,
	apiconnect.NodeServiceLeaveProcedure:    node,
	apiconnect.NodeServiceAnnounceProcedure: engineNode,
	apiconnect.NodeServiceKeysProcedure:     engineNode,
}

// Stale says that a method only reads, and may be answered from what an
// engine knew last when no engine leads.
func Stale(procedure string) bool {
	need, known := rules[procedure]
	return known && need == viewer && procedure != apiconnect.ClusterServicePlanProcedure && procedure != apiconnect.ClusterServiceCheckNetworksProcedure
}

// Check is nil if id may call procedure as v shows the cluster. Its errors
// are for the caller.
func Check(v state.View, id ca.Identity, procedure string) error {
	need, known := rules[procedure]
	switch {
	case !known:
		return connect.NewError(connect.CodeUnimplemented, fmt.Errorf("there is no method %s", procedure))
	case need == anyone:
		return nil
	case id.Role == "":
		return connect.NewError(connect.CodeUnauthenticated, fmt.Errorf("this needs a certificate of the cluster"))
	case need == node || need == engineNode || need == keyholder:
		return checkNode(v, id, need)
	}
	return checkOperator(v, id, need)
}

func refuse(code connect.Code, reason, format string, args ...any) error {
	err := connect.NewError(code, fmt.Errorf(format, args...))
	if reason != "" {
		err.Meta().Set(api.ReasonHeader, reason)
	}
	return err
}

func checkNode(v state.View, id ca.Identity, need caller) error {
	if id.Role != ca.Engine && id.Role != ca.Agent {
		return refuse(connect.CodePermissionDenied, "", "this needs a node's certificate, not an operator's")
	}
	n := v.Node(id.ID)
	switch {
	case n == nil && wasRemoved(v.Cluster(), id.ID):
		return refuse(connect.CodePermissionDenied, api.ReasonRemoved, "this node was removed from the cluster")
	case n == nil:
		return refuse(connect.CodePermissionDenied, "", "the cluster doesn't know node %s: `orch cluster leave --force` on its host, then join again", id.ID)
	case n.KeyDigest != id.Key:
		return refuse(connect.CodePermissionDenied, "", "node %q has another key", n.Name)
	case need == keyholder:
		return nil
	case !id.Verified:
		return refuse(connect.CodeUnauthenticated, api.ReasonRenew, "the certificate of node %q has ended, or its CA was replaced", n.Name)
	case need == engineNode && n.Role != string(ca.Engine):
		return refuse(connect.CodePermissionDenied, "", "node %q is no engine", n.Name)
	}
	return nil
}

func checkOperator(v state.View, id ca.Identity, need caller) error {
	if id.Role != ca.Operator {
		return refuse(connect.CodePermissionDenied, "", "this needs an operator's certificate")
	}
	if id.Local {
		return nil
	}
	o := v.Operator(id.ID)
	switch {
	case o == nil || o.KeyDigest != id.Key:
		return refuse(connect.CodePermissionDenied, "", "operator %q is not, or no longer, known to the cluster: an admin can `orch operator add` it", id.ID)
	case need == itself:
		return nil
	case !id.Verified:
		return refuse(connect.CodeUnauthenticated, api.ReasonRenew, "the certificate of operator %q has ended, or its CA was replaced", o.Name)
	case level(o.Role) < need:
		return refuse(connect.CodePermissionDenied, "", "operator %q may only %s; this needs one that may %s", o.Name, o.Role, map[caller]string{deployer: "deploy", admin: "admin"}[need])
	}
	return nil
}

func level(role string) caller {
	switch role {
	case "admin":
		return admin
	case "deploy":
		return deployer
	}
	return viewer
}

// wasRemoved says that the cluster removed a node: its id never comes again.
func wasRemoved(c *api.Cluster, node string) bool {
	return slices.ContainsFunc(c.GetRemoved(), func(r *api.RemovedNode) bool { return r.Id == node })
}

// Raft says whether a peer may speak raft with this engine. What this engine
// knows may be old, so a certificate that is newer than what it knows counts.
func Raft(v state.View, id ca.Identity) error {
	n := v.Node(id.ID)
	switch {
	case !id.Verified || id.Role != ca.Engine:
		return fmt.Errorf("it has no engine's certificate")
	case wasRemoved(v.Cluster(), id.ID):
		return fmt.Errorf("it was removed from the cluster")
	case n != nil && n.Role != string(ca.Engine) && id.Issued.Before(n.RoleSince.AsTime()):
		return fmt.Errorf("node %q is no engine any more", n.Name)
	}
	return nil
}

// Package enroll lets hosts become nodes and keeps them so: it signs
// certificates with the cluster's CA, whose key is in the state, sealed;
// checks join tokens; tells nodes what they need to know of the cluster; and
// replaces the CA step by step. Desk implements the NodeService. All methods
// are safe for concurrent use; those that change something need the leader.
package enroll

// Package operator answers what operators ask of the cluster: plans,
// releases, lists, logs and events. Handlers check, evaluate and propose;
// what is decided is decided in Apply. Roles are checked at each method.
package operator

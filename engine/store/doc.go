// Package store replicates the state: the only package that knows raft, and
// the one door to a change. Propose puts a command into the log and returns
// what Apply came to; View reads what this engine has applied; Watch tells
// what changed. All methods are safe for concurrent use.
package store

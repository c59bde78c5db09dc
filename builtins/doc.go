// Package builtins holds the functions and values that playbooks are written
// with: calling them makes immutable values, and the one stack() of a run
// turns what it reaches into an api.StackSpec with every default filled in.
//
// Each function is one table (Func): its parameters with kind, default and
// meaning drive unpacking, `orch doc` and editor stubs alike. A call reports
// all that is wrong with it to the Run and still returns a value, so that one
// evaluation finds all mistakes, not just the first.
//
// Replay is r, what a strategy works with: a rollout's journal is replayed to
// it, and the first op that it doesn't hold ends the call.
//
// Predeclared and the tables are shared by all runs and safe for concurrent
// use; a Run belongs to one evaluation on one goroutine.
package builtins

// Package simulate runs the whole engine without raft, network, agents or
// time: real state, real reconcile, rollout, release and schedule on a clock
// that only its caller moves, with agents that take tasks through their states
// at once unless they are told to hold or to break them.
//
// A World is one leader's cluster. `orch plan` looks ahead in one that is a
// copy of the real cluster, `orch test` plays releases through in one that a
// test describes, and the engine's own tests drive it. A World belongs to one
// goroutine.
package simulate

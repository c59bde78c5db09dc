// Package script runs the whole engine without raft, network, agents or time:
// real state, real reconcile, rollout and schedule on a clock that only tests
// move, with agents that take tasks through their states at once unless they
// are told to hold them.
//
// It exists for tests: World is what they drive, testdata/*.txt are
// transcripts that a reader can follow before knowing any Go.
package script

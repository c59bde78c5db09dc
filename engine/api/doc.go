// Package api is the vocabulary of orch: the messages that playbooks,
// engine, agent and CLI exchange and that the raft log and its snapshots
// hold, generated from the .proto files beside it (`make proto`).
//
// Messages that came out of engine/state are shared and must not be
// changed; clone before you change.
package api

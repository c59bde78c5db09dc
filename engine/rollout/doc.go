// Package rollout executes strategies: it asks a Strategy for the next op,
// commits it together with the change of desired state that it makes, and
// evaluates the open op's condition from state until it ends.
//
// All there is to know of a rollout is its journal in the log. Nothing lives
// between two calls of Step, so a new leader goes on exactly. Rollback is
// done here and never needs the strategy. Everything is pure.
package rollout

// Package schedule chooses a node for each task that has none, or explains
// why no node fits. It is pure: the same nodes, tasks and requests give the
// same decisions, and ties go to the lesser node id.
package schedule

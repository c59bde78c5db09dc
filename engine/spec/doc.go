// Package spec knows what a stack's specification means before anything
// runs: whether it is whole (Validate), in which form it is kept (Normalize),
// what identifies a version (Version) and how two of them differ (Diff).
//
// Hash and Diff walk the protobuf schema, so a new field takes part in both
// without a line here. All functions are pure and safe for concurrent use.
package spec

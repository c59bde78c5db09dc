// Package state is the replicated state of a cluster: rows in an in-memory
// database, and Apply, the only thing that changes them.
//
// Apply is deterministic and total: it has no clock, no randomness and no
// order of maps in it, and an entry that it doesn't like gives the same
// error on every engine and changes nothing. A View is one consistent,
// immutable moment; the rows it hands out are shared: clone before you
// change. State is safe for concurrent use, with one caller of Apply and
// Restore at a time.
package state

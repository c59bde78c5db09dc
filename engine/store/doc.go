// Package store replicates the state: the only package that knows raft, and
// the one door to a change. Propose puts a command into the log and returns
// what Apply came to; View reads what this engine has applied; Watch tells
// what changed. All methods are safe for concurrent use.
//
// A change has happened once Propose says so, and hasn't if it returns another
// error than ErrLost. A View may be old; one that is taken after Verify holds
// all that was acknowledged to anybody before.
//
// A lone voter leads at once, as it tells itself to stand for election; of
// several, one leads again 0.6 to 1.5 s after its leader fell silent
// (followers wait 0.5 to 1 s, look once more if they heard of it in the first
// half of that, and vote only once they miss the leader, too), or at once when
// that hands over.
//
// On the disk are raft.db (bbolt) and snapshots/. With Config.Key what entries
// and snapshots hold is encrypted: see sealedLog and sealMagic for the formats.
// Indexes, terms, votes, and the members' ids and addresses are not.
package store

// Package bootstrap makes Linux hosts that answer by SSH into nodes of a
// cluster, upgrades them and takes all away again.
//
// Read turns an inventory into hosts; a Dialer reaches them. Run, Upgrade and
// Reset each look at every host first (a probe that changes nothing), decide
// by pure functions of what they saw what there is to find fault with and what
// to do (Finding, Op), and only then change anything, under a lock on each
// host. What is done already is not done again: a second Run of the same
// inventory changes nothing, and one after a failure does the rest.
//
// On a host the package needs a POSIX shell and root, by itself or by sudo;
// the binary that it uploads does what concerns keys and the cluster
// (`orch host …`). No secret is ever on a command line, and no token travels:
// a node's key stays where it was made, only its request is carried.
//
// It is the only importer of golang.org/x/crypto/ssh. Nothing in it is for
// concurrent use, but that it works on many hosts at a time by itself.
package bootstrap

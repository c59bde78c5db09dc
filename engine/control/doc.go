// Package control is the leader's one loop: it looks at every service that
// something changed for, asks reconcile, rollout and schedule what to do,
// and proposes it. Pass is pure; Run does what it says for as long as this
// engine leads.
package control

package api

// Headers by which engines tell programs more than a message does.
const (
	// LeaderHeader of an error is the address, host:port, of the engine that
	// leads.
	LeaderHeader = "Orch-Leader"
	// ReasonHeader of an error is one of the reasons below.
	ReasonHeader = "Orch-Reason"
	// StaleHeader of an answer says why it may be old: it is what an engine
	// knew last, without a leader to ask.
	StaleHeader = "Orch-Stale"
)

const (
	// ReasonRemoved: the cluster removed this node.
	ReasonRemoved = "removed"
	// ReasonRenew: the certificate ended, or its CA was replaced.
	ReasonRenew = "renew"
	// ReasonAgain: nothing was done; it can be tried again at once.
	ReasonAgain = "again"
)

// Package dispatch serves the sessions of agents: it sends each node what it
// should run, first all of it, then what changed; takes statuses, many to a
// log entry; and knows from heartbeats, which never enter the log, which
// nodes are up. It also carries log lines from agents to those who asked, and
// commands to run in tasks to agents.
package dispatch

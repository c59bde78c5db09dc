// Package member decides which engines vote. It is pure: Next compares the
// engines that are wanted with raft's servers and says one step at a time
// what brings them together; Removal says whether one may go without the
// rest losing their quorum.
package member

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"orch/engine/api"
)

// Server is one of raft's.
type Server struct {
	ID, Address string
	Voter       bool
}

// Heard is what an engine said of itself last.
type Heard struct {
	At      time.Time
	Address string // where others reach it
	Applied uint64
}

const (
	// Fresh is how long what an engine said counts.
	Fresh = 3 * time.Second
	// near the leader's log a new engine has caught up.
	near = 256
)

// Action is what a step does.
type Action string

const (
	Add     Action = "add"     // as one that doesn't vote yet
	Promote Action = "promote" // it has caught up: it votes
	Move    Action = "move"    // it has another address
	Remove  Action = "remove"
)

// Step is one change of raft's servers.
type Step struct {
	Action      Action
	ID, Address string
	Voter       bool // Move: it votes
}

// Next is the step to take now; nil: none. One that isn't heard of isn't
// added: a voter that can't be reached costs the others their quorum.
func Next(nodes []*api.Node, servers []Server, heard map[string]Heard, applied uint64, now time.Time) *Step {
	wanted := map[string]bool{}
	for _, n := range nodes {
		wanted[n.Id] = n.Role == "engine"
	}
	servers = slices.Clone(servers)
	slices.SortFunc(servers, func(a, b Server) int { return cmp.Compare(a.ID, b.ID) })
	known := map[string]bool{}
	for _, s := range servers {
		known[s.ID] = true
		h, fresh := lately(heard, s.ID, now)
		switch {
		case !wanted[s.ID]:
			return &Step{Action: Remove, ID: s.ID}
		case fresh && h.Address != s.Address:
			return &Step{Move, s.ID, h.Address, s.Voter}
		case fresh && !s.Voter && h.Applied+near >= applied:
			return &Step{Promote, s.ID, s.Address, true}
		}
	}
	for _, n := range nodes {
		if h, fresh := lately(heard, n.Id, now); wanted[n.Id] && !known[n.Id] && fresh {
			return &Step{Action: Add, ID: n.Id, Address: h.Address}
		}
	}
	return nil
}

func lately(heard map[string]Heard, id string, now time.Time) (Heard, bool) {
	h, ok := heard[id]
	return h, ok && now.Sub(h.At) < Fresh
}

// Removal is an error if the cluster couldn't go on without the engine:
// fewer than a majority of those that stay are there.
func Removal(id string, servers []Server, heard map[string]Heard, now time.Time) error {
	stay, there, is := 0, 0, false
	for _, s := range servers {
		switch {
		case s.ID == id:
			is = true
		case s.Voter:
			stay++
			if _, fresh := lately(heard, s.ID, now); fresh {
				there++
			}
		}
	}
	switch {
	case !is:
		return nil
	case stay == 0:
		return fmt.Errorf("it is the only engine: promote another node first")
	case there < stay/2+1:
		return fmt.Errorf("only %d of the other %s can be reached, fewer than a majority: without it nothing could be changed any more; bring an engine back, or promote another node first", there, engines(stay))
	}
	return nil
}

// Reach says in words why no engine leads.
func Reach(servers []Server, heard map[string]Heard, now time.Time) string {
	voters, there := 0, 0
	for _, s := range servers {
		if s.Voter {
			voters++
			if _, fresh := lately(heard, s.ID, now); fresh {
				there++
			}
		}
	}
	if voters == 0 {
		return "no leader: this engine isn't one of the cluster's voters yet"
	}
	return fmt.Sprintf("no leader: the cluster has %s and can change nothing until %d of them reach each other; tasks run on", engines(voters), voters/2+1)
}

func engines(n int) string {
	if n == 1 {
		return "1 engine"
	}
	return fmt.Sprintf("%d engines", n)
}

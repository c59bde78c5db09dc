package bootstrap

import (
	"net"
	"slices"
)

// Seen is a host and what preflight found it to be.
type Seen struct {
	*Host
	Facts *Facts // nil: see Err
	Err   error  // why it could not be looked at

	shell *shell
}

// address is where other hosts reach it.
func (s *Seen) address() string {
	switch {
	case s.Addr != "":
		return s.Addr
	case s.Facts == nil:
		return ""
	}
	return s.Facts.Address
}

func (s *Seen) engineAddress(port int) string { return joinHost(s.address(), port) }

// name gives the host the name of its node, where the line has none.
func (s *Seen) name() {
	if s.Name != "" {
		return
	}
	if s.Name = s.Facts.Status.GetName(); s.Name != "" {
		return
	}
	if s.Name = shortName(s.Address); s.Name == "" || s.Name == "localhost" {
		s.Name = shortName(s.Facts.Hostname)
	}
}

// clusterOf is the cluster that most of the hosts are in already, and its name.
func clusterOf(all []*Seen) (id, name string) {
	votes := map[string]int{}
	for _, s := range all {
		if c, _, _ := s.Facts.member(); c != "" {
			if votes[c]++; votes[c] > votes[id] {
				id = c
			}
		}
	}
	for _, s := range all {
		if s.Facts != nil && s.Facts.Status.GetClusterId() == id && id != "" {
			name = s.Facts.Status.ClusterName
		}
	}
	return id, name
}

func loopback(address string) bool {
	ip := net.ParseIP(address)
	return ip != nil && ip.IsLoopback()
}

func healthy(all []*Seen, findings []Finding) []*Seen {
	var good []*Seen
	for _, s := range all {
		if !slices.ContainsFunc(findings, func(f Finding) bool { return f.Host == s.Host && f.Error }) {
			good = append(good, s)
		}
	}
	return good
}

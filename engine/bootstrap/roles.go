package bootstrap

import (
	"errors"
	"fmt"
	"net"
	"strings"
)

// AssignRoles gives a role to each host whose line has none, and says in note
// what it chose. is has the roles of those that are in the cluster already, by
// place in hosts: those stay. others is how many engines the cluster has
// besides them. An even number of engines is an error that says why.
//
// Where no line has a role, one or two hosts get one engine, three or more
// get three: five survive the loss of two, but each write waits for three of
// them, so that is for whom asks for it. Once one line says engine, the rest
// are agents.
func AssignRoles(hosts []*Host, is map[int]string, others int) (note string, err error) {
	named, engines, open := false, others, 0
	for i, h := range hosts {
		switch {
		case h.Role != "":
			named = named || h.Role == "engine"
		case is[i] != "":
			h.Role = is[i]
			named = named || others > 0
		default:
			open++
		}
		if h.Role == "engine" {
			engines++
		}
	}
	if !named && others == 0 {
		want := 3
		if len(hosts) < 3 {
			want = 1
		}
		var chosen []string
		for _, h := range hosts {
			if h.Role == "" && engines < want {
				h.Role = "engine"
				engines++
				chosen = append(chosen, h.String())
			}
		}
		if len(chosen) > 0 {
			note = fmt.Sprintf("no line says role=: %s (%s)", count(len(chosen), "engine"), strings.Join(chosen, ", "))
		}
	}
	for _, h := range hosts {
		if h.Role == "" {
			h.Role = "agent"
		}
	}
	return note, oddEngines(engines)
}

func oddEngines(n int) error {
	switch {
	case n == 0:
		return errors.New("no host is an engine: a cluster needs 1, 3 or 5; write role=engine on its line")
	case n%2 == 0:
		return fmt.Errorf("%d engines are no better than %d: more than half must agree, so both survive the loss of %s, and one more can fail; make it %d or %d (role=engine, role=agent)",
			n, n-1, count((n-1)/2, "engine"), n-1, n+1)
	case n > 5:
		return fmt.Errorf("%d engines: every write waits for more than half of them; 1, 3 or 5 are enough, the rest are agents (role=agent)", n)
	}
	return nil
}

func count(n int, what string) string {
	switch n {
	case 0:
		return "no " + what
	case 1:
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// shortName is the name of a node on a host of this name: up to the first dot,
// in lower case. An IP gives none.
func shortName(host string) string {
	if isIP(host) {
		return ""
	}
	name, _, _ := strings.Cut(strings.ToLower(host), ".")
	name = strings.ReplaceAll(name, "_", "-")
	if !nodeName.MatchString(name) {
		return ""
	}
	return name
}

// joinHost is host:port with an IPv6 address in brackets.
func joinHost(host string, port int) string { return net.JoinHostPort(host, fmt.Sprint(port)) }

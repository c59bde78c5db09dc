package names

import (
	"net"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"orch/engine/api"
)

// found is what a name means.
type found struct {
	service   *api.NamedService
	addresses []string
	virtual   bool
	port      string // SRV: only ports of this name; "": all
}

// lookup finds a name in the first zone that has its service; nil: none has.
func lookup(zones []*api.Zone, name string) *found {
	port := ""
	if labels := strings.SplitN(name, ".", 3); len(labels) == 3 && strings.HasPrefix(labels[0], "_") && (labels[1] == "_tcp" || labels[1] == "_udp") {
		port, name = labels[0][1:], labels[2]
	}
	for _, z := range zones {
		for _, s := range z.Services {
			before, ok := strings.CutSuffix(name, s.Name+"."+s.Stack)
			if !ok {
				before, ok = strings.CutSuffix(name, s.Name)
			}
			if !ok || before != "" && !strings.HasSuffix(before, ".") {
				continue
			}
			f := &found{service: s, port: port}
			switch which := strings.TrimSuffix(before, "."); which {
			case "":
				f.addresses, f.virtual = []string{s.Virtual}, true
			case "tasks":
				for _, t := range s.Tasks {
					if t.Ready {
						f.addresses = append(f.addresses, t.Address)
					}
				}
			default:
				t := slot(s, which)
				if t == nil {
					continue
				}
				f.addresses = []string{t.Address}
			}
			return f
		}
	}
	return nil
}

// slot is the task of a slot: the one in rotation, where there are two.
func slot(s *api.NamedService, key string) (best *api.NamedTask) {
	for _, t := range s.Tasks {
		if strings.EqualFold(t.Slot, key) && (best == nil || t.Ready) {
			best = t
		}
	}
	return best
}

// reply answers a question about it. A name that is there, but has nothing of
// the kind asked for, has an empty answer, so that nobody looks elsewhere.
func (f *found) reply(q *dns.Msg) *dns.Msg {
	a := new(dns.Msg)
	a.SetReply(q)
	a.Authoritative, a.RecursionAvailable = true, true
	ask := q.Question[0]
	header := func(name string, kind uint16) dns.RR_Header {
		return dns.RR_Header{Name: name, Rrtype: kind, Class: dns.ClassINET, Ttl: ttl}
	}
	switch ask.Qtype {
	case dns.TypeA, dns.TypeANY:
		for _, address := range f.addresses {
			a.Answer = append(a.Answer, &dns.A{Hdr: header(ask.Name, dns.TypeA), A: net.ParseIP(address)})
		}
	case dns.TypeSRV:
		for _, t := range f.service.Tasks {
			if !t.Ready || !f.virtual && !slices.Contains(f.addresses, t.Address) {
				continue
			}
			host := dns.Fqdn(t.Slot + "." + f.service.Name + "." + f.service.Stack)
			for _, p := range f.service.Ports {
				if f.port != "" && f.port != p.Name && !(p.Name == "" && f.port == p.Protocol) {
					continue
				}
				a.Answer = append(a.Answer, &dns.SRV{Hdr: header(ask.Name, dns.TypeSRV), Priority: 1, Weight: 1, Port: uint16(p.Target), Target: host})
				a.Extra = append(a.Extra, &dns.A{Hdr: header(host, dns.TypeA), A: net.ParseIP(t.Address)})
			}
		}
	}
	return a
}

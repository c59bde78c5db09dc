package names

import (
	"context"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	// askFor is how long a resolver has for an answer.
	askFor = 2 * time.Second
	// keepFor is how long at most an answer is kept, and mostKept how many are.
	keepFor  = time.Minute
	mostKept = 4096
)

// upstream are the host's resolvers, with what they answered lately.
type upstream struct {
	mu      sync.Mutex
	file    time.Time // when it was changed last
	servers []string
	kept    map[dns.Question]answered
}

type answered struct {
	message *dns.Msg
	until   time.Time
}

// ask passes a question on.
func (u *upstream) ask(ctx context.Context, q *dns.Msg, file string) *dns.Msg {
	now := time.Now()
	key := q.Question[0]
	key.Name = strings.ToLower(key.Name)
	u.mu.Lock()
	if k, ok := u.kept[key]; ok && now.Before(k.until) {
		u.mu.Unlock()
		a := k.message.Copy()
		a.Id, a.Question = q.Id, q.Question
		return a
	}
	servers := u.read(file)
	u.mu.Unlock()
	for _, server := range servers {
		a := exchange(ctx, q, server)
		if a == nil || a.Rcode == dns.RcodeServerFailure {
			continue
		}
		u.keep(key, a, now)
		return a
	}
	return failure(q, dns.RcodeServerFailure)
}

func exchange(ctx context.Context, q *dns.Msg, server string) *dns.Msg {
	for _, network := range []string{"udp", "tcp"} {
		ctx, cancel := context.WithTimeout(ctx, askFor)
		c := dns.Client{Net: network, UDPSize: dns.DefaultMsgSize, Timeout: askFor}
		a, _, err := c.ExchangeContext(ctx, q.Copy(), server)
		cancel()
		if err != nil {
			return nil
		}
		if !a.Truncated {
			return a
		}
	}
	return nil
}

// keep remembers an answer for the shortest time that one of its records has.
func (u *upstream) keep(key dns.Question, a *dns.Msg, now time.Time) {
	least := keepFor
	for _, rr := range slices.Concat(a.Answer, a.Ns) {
		least = min(least, time.Duration(rr.Header().Ttl)*time.Second)
	}
	if a.Rcode != dns.RcodeSuccess && a.Rcode != dns.RcodeNameError || len(a.Answer)+len(a.Ns) == 0 || least <= 0 {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.kept == nil || len(u.kept) >= mostKept {
		u.kept = map[dns.Question]answered{}
	}
	u.kept[key] = answered{a.Copy(), now.Add(least)}
}

// read looks at the file again if it has changed; u.mu is held.
func (u *upstream) read(file string) []string {
	if file == "" {
		file = "/etc/resolv.conf"
	}
	info, err := os.Stat(file)
	if err != nil || info.ModTime().Equal(u.file) {
		return u.servers
	}
	config, err := dns.ClientConfigFromFile(file)
	if err != nil {
		return u.servers
	}
	u.file, u.servers = info.ModTime(), nil
	for _, s := range config.Servers {
		u.servers = append(u.servers, net.JoinHostPort(s, config.Port))
	}
	return u.servers
}

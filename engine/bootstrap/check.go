package bootstrap

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Finding is something about a host that an operator should know.
type Finding struct {
	Host  *Host
	Error bool // the host can't become a node like this; else a warning
	Text  string
	Fix   string // the way out
}

const (
	mostSkew    = 30 * time.Second
	leastDisk   = 1 << 30
	leastMemory = 256 << 20
)

// check says all that is to be said about hosts, in their order. cluster is
// the one that they are in or shall join; empty: a new one.
func check(all []*Seen, o *Options, cluster string) []Finding {
	c := &checks{o: o, cluster: cluster, all: all}
	skew := median(all)
	for _, s := range all {
		c.at = s
		if s.Err != nil {
			text, fix, _ := strings.Cut(s.Err.Error(), "\n  ")
			c.fail(text, fix)
			continue
		}
		c.host(s)
		if d := s.Facts.Skew - skew; d.Abs() > mostSkew {
			c.fail(fmt.Sprintf("its clock is %s %s the others", d.Abs().Round(time.Second), map[bool]string{true: "ahead of", false: "behind"}[d > 0]), "let chrony, ntpd or systemd-timesyncd keep it")
		}
		c.unique(s)
		c.paths(s)
	}
	return c.found
}

type checks struct {
	o       *Options
	cluster string
	all     []*Seen
	at      *Seen
	found   []Finding
}

func (c *checks) fail(text, fix string) { c.add(true, text, fix) }
func (c *checks) warn(text, fix string) { c.add(false, text, fix) }

func (c *checks) add(isError bool, text, fix string) {
	c.found = append(c.found, Finding{c.at.Host, isError, text, fix})
}

// host checks what concerns one host alone.
func (c *checks) host(s *Seen) {
	f, o := s.Facts, c.o
	switch {
	case f.OS != "linux":
		c.fail("it runs "+f.OS, "orch's hosts run Linux")
		return
	case o.Binaries[f.Arch] == nil && slices.Contains([]string{"amd64", "arm64"}, f.Arch):
		c.fail("its architecture is "+f.Arch+", and this orch is for another", fmt.Sprintf("--binary-%s=PATH: GOARCH=%s make build makes one", f.Arch, f.Arch))
	case o.Binaries[f.Arch] == nil:
		c.fail("its architecture is "+f.Arch, "orch runs on amd64 and arm64")
	}
	if f.Lock != "" {
		c.fail("somebody is at work on it: "+f.Lock, "wait for it; if that run is dead: rm -r "+o.lock())
	}
	switch id, _, _ := f.member(); {
	case id != "" && id != c.cluster:
		name := f.Status.GetClusterName()
		if name == "" {
			name = id
		}
		c.fail(fmt.Sprintf("it is in another cluster already, %q", name), "take it out: orch bootstrap --reset with an inventory of this host alone")
	case f.PortTaken && f.Status == nil && s.Role == "engine":
		c.fail(fmt.Sprintf("port %d is taken, and not by orch", o.Port), "end that program, or --port another")
	}
	switch {
	case f.Docker != "":
	case o.InstallDocker && f.Packages != "":
	case o.InstallDocker:
		c.fail("Docker is missing, and no package manager is known", "install Docker by hand")
	case o.RequireDocker:
		c.fail("Docker does not answer"+colon(f.DockerError), "install or start it, or --install-docker")
	default:
		c.warn("Docker does not answer"+colon(f.DockerError), "only tasks with runtime=\"process\" can run there; --install-docker installs it")
	}
	if f.Disk < leastDisk {
		c.fail(fmt.Sprintf("%d MiB are free for %s", f.Disk>>20, o.DataDir), "make room for 1 GiB, or --data-dir elsewhere")
	}
	if f.Memory < leastMemory {
		c.warn(fmt.Sprintf("it has %d MiB of memory", f.Memory>>20), "orch itself takes about 60 MiB")
	}
	if f.Cgroup == "none" {
		c.warn("it has no cgroups", "limits of tasks that run as processes can't be kept")
	}
	if f.Init == "none" {
		c.warn("nothing there starts programs at boot (systemd, init.d, cron)", "after a reboot: "+o.supervisor()+" start")
	}
	if !f.helper("sha256sum") {
		c.fail("it has no sha256sum", "install coreutils")
	}
}

func colon(text string) string {
	if text == "" {
		return ""
	}
	return ": " + text
}

// unique checks what no two hosts may share.
func (c *checks) unique(s *Seen) {
	if s.Name == "" {
		c.fail(fmt.Sprintf("its host name %q can't be a node's", s.Facts.Hostname), "name= on its line")
	}
	if s.address() == "" {
		c.fail("it is not known where other hosts reach it", "addr= on its line")
	} else if loopback(s.address()) && len(c.all) > 1 {
		c.fail(s.address()+" reaches it from itself alone", "addr= on its line, with an address that the other hosts reach")
	}
	for _, other := range c.all {
		if other == s || other.Facts == nil {
			continue
		}
		switch {
		case s.address() != "" && s.address() == other.address():
			c.fail(fmt.Sprintf("it has the address of %s (%s), %s", other, other.Source, s.address()), "is it the same host twice? else addr=")
		case s.Name != "" && s.Name == other.Name:
			c.fail(fmt.Sprintf("two hosts are called %q: %s and %s", s.Name, s.Source, other.Source), "name= on their lines")
		case s.Facts.Machine != "" && s.Facts.Machine == other.Facts.Machine:
			c.warn("it has the machine id of "+other.String(), "a copied disk? rm /etc/machine-id; systemd-machine-id-setup")
		default:
			continue
		}
		return
	}
}

// paths checks that the host reaches the engines.
func (c *checks) paths(s *Seen) {
	for _, e := range c.all {
		if e == s || e.Role != "engine" || e.Facts == nil {
			continue
		}
		at := e.engineAddress(c.o.Port)
		switch how := s.Facts.Paths[at]; how {
		case "", "ok":
		case "unknown", "refused":
			c.warn(fmt.Sprintf("it could not be tried whether it reaches engine %s at %s (no python3 or perl)", e, at), "")
		default:
			c.fail(fmt.Sprintf("it does not reach engine %s at %s: %s", e, at, how), "open the port in firewalls and security groups, or addr= another address of "+e.String())
		}
	}
}

// median is what most clocks agree on.
func median(all []*Seen) time.Duration {
	var skews []time.Duration
	for _, s := range all {
		if s.Facts != nil {
			skews = append(skews, s.Facts.Skew)
		}
	}
	if len(skews) == 0 {
		return 0
	}
	slices.Sort(skews)
	return skews[(len(skews)-1)/2]
}

package bootstrap

import (
	"fmt"
	"strings"

	"orch/engine/api"
)

// Op is one thing to do on a host. Each is asked for only where it isn't done.
type Op struct {
	Kind string `json:"op"` // docker | upload | service | identity | found | admit | start | restart | role | labels | verify
	Text string `json:"text"`
}

// plan is what is to be done on a host, in order; empty if nothing is. founder
// says that the cluster begins on it; node is what the cluster knows of it, or
// nil.
func plan(s *Seen, o *Options, founder bool, node *api.Node) []Op {
	var ops []Op
	do := func(kind, format string, args ...any) { ops = append(ops, Op{kind, fmt.Sprintf(format, args...)}) }
	f, b := s.Facts, o.Binaries[s.Facts.Arch]
	if o.InstallDocker && f.Docker == "" {
		do("docker", "install Docker with %s", f.Packages)
	}
	changed := false
	switch {
	case f.Binary == "":
		do("upload", "upload orch for %s (%d MiB) to %s", f.Arch, (b.Size+1<<20-1)>>20, o.binary())
	case f.Binary != b.Sum:
		do("upload", "replace %s (%s)", o.binary(), f.Version)
		changed = true
	}
	if f.Init == "systemd" && (f.Unit != sum(o.unit()) || !f.Enabled) {
		do("service", "write and enable %s", unitPath)
		changed = true
	} else if f.Init != "systemd" && f.Supervisor != sum(o.supervise()) {
		do("service", "write %s, started at boot by %s", o.supervisor(), f.Init)
		changed = true
	}
	cluster, _, _ := f.member()
	switch {
	case cluster != "":
	case founder:
		do("identity", "make the node's id and key in %s", o.DataDir)
		do("found", "found cluster %q as its first engine, at %s", o.Cluster, s.engineAddress(o.Port))
		changed = true
	default:
		do("identity", "make the node's id and key in %s", o.DataDir)
		do("admit", "admit it as %s %q and install its certificate", s.Role, s.Name)
		changed = true
	}
	switch {
	case f.Status == nil:
		do("start", "start orch")
		do("verify", "see that it is up")
	case changed:
		do("restart", "restart orch; tasks keep running")
		do("verify", "see that it is up")
	}
	if node != nil && node.Role != s.Role {
		do("role", "make it an %s; it is an %s", s.Role, node.Role)
	}
	if missing := labels(s, node); len(missing) > 0 && (node != nil || founder) {
		do("labels", "set %s", strings.Join(missing, ", "))
	}
	return ops
}

// labels are those of the line that the node lacks, "key=value".
func labels(s *Seen, node *api.Node) []string {
	var missing []string
	for _, k := range sortedKeys(s.Labels) {
		if v := s.Labels[k]; node == nil || node.Labels[k] != v {
			missing = append(missing, k+"="+v)
		}
	}
	return missing
}

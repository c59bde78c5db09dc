package bootstrap

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"orch/engine/api"
)

//go:embed probe.sh
var probeScript string

// Facts are what a host was seen to be, before anything was changed.
type Facts struct {
	OS, Arch  string // as Go calls them
	Hostname  string
	Machine   string // machine-id
	Boot      string // boot-id
	Addresses []string
	Address   string        // where SSH came in
	Skew      time.Duration // of its clock, against ours

	Init        string // systemd | openrc | sysv | cron | rc.local | none
	Cgroup      string // v1 | v2 | none
	Packages    string // the package manager; "": none that is known
	Docker      string // its version; "": it doesn't answer
	DockerError string // what the client said
	Disk        int64  // bytes free where the data will be
	Memory      int64  // bytes
	PortTaken   bool   // somebody listens on the engine's port
	Helpers     []string

	Binary     string // SHA-256 of what is installed, hex; "": nothing
	Unit       string
	Supervisor string
	Version    string // of the installed binary
	Data       bool   // there is a data folder
	Enabled    bool   // by systemd
	Lock       string // who holds it

	Status  *api.HostStatus // of the daemon; nil: none answers
	Kept    *identity       // where none answers: what the data folder says
	HostKey string
	Paths   map[string]string // address of an engine -> ok | refused | …; see reach
}

// probe looks at a host.
func probe(ctx context.Context, s *shell, o *Options) (*Facts, error) {
	var came bytes.Buffer
	if _, err := s.Run(ctx, `echo "$SSH_CONNECTION"`, nil, &came, &bytes.Buffer{}); err != nil {
		return nil, err
	}
	began := time.Now()
	out, err := s.output(ctx, probeScript, nil, o.DataDir, o.binary(), unitPath, o.supervisor(), strconv.Itoa(o.Port))
	if err != nil {
		return nil, fmt.Errorf("cannot look at the host: %w", err)
	}
	f, err := parseFacts(out, began)
	if err != nil {
		return nil, err
	}
	if words := strings.Fields(came.String()); len(words) == 4 {
		f.Address = words[2]
	}
	f.HostKey = s.HostKey()
	return f, nil
}

// architectures are Go's names for those of uname -m.
var architectures = map[string]string{"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}

// parseFacts reads what probe.sh printed; began is when it was started. What
// a login's profile prints around it is skipped.
func parseFacts(text string, began time.Time) (*Facts, error) {
	_, text, ok := strings.Cut("\n"+text, "\norch-probe-begin\n")
	text, _, ended := strings.Cut(text, "orch-probe-end")
	if !ok || !ended {
		return nil, errors.New("the probe came back in pieces: does the login shell print and end by itself?")
	}
	v := map[string]string{}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimRight(line, "\n"), "=")
		v[key] = strings.TrimSpace(value)
	}
	number := func(key string) int64 { n, _ := strconv.ParseInt(v[key], 10, 64); return n }
	f := &Facts{
		OS: strings.ToLower(v["os"]), Arch: architectures[v["arch"]], Hostname: v["hostname"], Machine: v["machine"], Boot: v["boot"],
		Init: v["init"], Cgroup: v["cgroup"], Packages: v["packages"], Docker: v["docker"], DockerError: v["docker_error"],
		Disk: number("disk_kib") << 10, Memory: number("memory_kib") << 10, PortTaken: v["port"] == "taken", Helpers: strings.Fields(v["helpers"]),
		Binary: v["binary"], Unit: v["unit"], Supervisor: v["supervisor"], Version: v["version"], Data: v["data"] != "",
		Enabled: v["enabled"] == "enabled", Lock: v["lock"],
	}
	if f.Arch == "" {
		f.Arch = v["arch"]
	}
	for _, a := range strings.Fields(v["addresses"]) {
		if net.ParseIP(a) != nil {
			f.Addresses = append(f.Addresses, a)
		}
	}
	if at := number("time"); at != 0 {
		f.Skew = time.Unix(at, 0).Sub(began.Truncate(time.Second))
	}
	if v["status"] != "" {
		s := &api.HostStatus{}
		if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal([]byte(v["status"]), s); err != nil {
			return nil, fmt.Errorf("orch's status on the host can't be read: %w", err)
		}
		f.Status = s
	}
	if v["prepared"] != "" {
		f.Kept = &identity{}
		if err := json.Unmarshal([]byte(v["prepared"]), f.Kept); err != nil {
			return nil, fmt.Errorf("what the host's data folder says can't be read: %w", err)
		}
	}
	return f, nil
}

// identity is what `orch host prepare` prints.
type identity struct {
	State     string `json:"state"` // new | founder | member
	NodeID    string `json:"node_id"`
	ClusterID string `json:"cluster_id"`
	Role      string `json:"role"`
	CSR       []byte `json:"csr"` // PKCS #10, DER
}

// member is the cluster and the node that the host is already, or empty.
func (f *Facts) member() (cluster, node, role string) {
	switch {
	case f == nil:
	case f.Status.GetClusterId() != "":
		return f.Status.ClusterId, f.Status.NodeId, f.Status.Role
	case f.Kept != nil && f.Kept.ClusterID != "":
		return f.Kept.ClusterID, f.Kept.NodeID, f.Kept.Role
	}
	return "", "", ""
}

func (f *Facts) helper(name string) bool {
	for _, h := range f.Helpers {
		if h == name {
			return true
		}
	}
	return false
}

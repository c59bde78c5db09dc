package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path"
	"strings"
	"time"

	"orch/engine/api"
)

// Options say how hosts become nodes. The zero value, but for Dial and
// Binaries, works.
type Options struct {
	Hosts []*Host
	// Dial reaches a host, and says as which user; see Dialer.Dial.
	Dial func(context.Context, *Host) (t Transport, user string, err error)
	// SudoPassword asks for it, once; nil: there is none.
	SudoPassword func() (string, error)
	// Binaries are orch itself, by Go's names of architectures.
	Binaries map[string]*Binary

	Cluster       string // its name; empty: "orch"
	DataDir       string // empty: /var/lib/orch
	BinDir        string // empty: /usr/local/bin
	Port          int    // of the engines; 0: 4747
	Parallel      int    // how many hosts at a time; 0: 10
	RequireDocker bool
	InstallDocker bool
	DryRun        bool
	// Join is the cluster that the hosts shall join; nil: the one that a host
	// is in already, else a new one.
	Join Cluster

	// Connect reaches the cluster through connections to a host's socket.
	Connect func(dial func(context.Context) (net.Conn, error)) Cluster
	// Credentials keeps what an operator needs to ask the cluster; sign has a
	// certificate request signed by it. Nil: nothing is kept.
	Credentials func(ctx context.Context, c *api.Cluster, sign Sign) error
	// Report is told what happens, by one goroutine at a time; nil: nobody.
	Report func(Event)
	// Found is told what preflight found, before anything is changed; nil: nobody.
	Found func([]Finding)
	// Owner is who holds the locks, in words; empty: "orch bootstrap".
	Owner string
	// Patience is how long a host may take to come up; 0: 2 minutes.
	Patience time.Duration
}

// Cluster is what bootstrap asks of a cluster.
type Cluster interface {
	Admit(context.Context, *api.AdmitRequest) (*api.Membership, error)
	Info(context.Context) (*api.InfoResponse, error)
	Nodes(context.Context) ([]*api.Node, error)
	UpdateNode(context.Context, *api.UpdateNodeRequest) error
}

// Sign makes an operator of the cluster; csr is a certificate request, DER.
type Sign func(ctx context.Context, operator string, csr []byte) (*api.OperatorCredentials, error)

// Binary is orch for one architecture.
type Binary struct {
	Path string
	Sum  string // SHA-256, hex
	Size int64
}

// Event is something that happened to a host, or, without one, to all.
type Event struct {
	Host  string `json:"host,omitempty"`
	Op    string `json:"op,omitempty"`
	State string `json:"state"` // begun | done | failed | warning | note
	Text  string `json:"text,omitempty"`
}

const unitPath = "/etc/systemd/system/orch.service"

func (o *Options) defaults() error {
	set := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	set(&o.Cluster, "orch")
	set(&o.DataDir, "/var/lib/orch")
	set(&o.BinDir, "/usr/local/bin")
	set(&o.Owner, "orch bootstrap")
	if o.Port == 0 {
		o.Port = 4747
	}
	if o.Parallel <= 0 {
		o.Parallel = 10
	}
	if o.Patience == 0 {
		o.Patience = 2 * time.Minute
	}
	if o.Report == nil {
		o.Report = func(Event) {}
	}
	// Reset removes them: nothing that could be a system's own folder.
	for _, dir := range []string{o.DataDir, o.BinDir} {
		if !path.IsAbs(dir) || path.Clean(dir) != dir || strings.ContainsAny(dir, " \t\n%\"'\\$") {
			return fmt.Errorf("%q: want an absolute path without blanks, quotes or %%", dir)
		}
	}
	if strings.Count(o.DataDir, "/") < 2 {
		return fmt.Errorf("--data-dir %s: want a folder of its own, as /var/lib/orch", o.DataDir)
	}
	if len(o.Hosts) == 0 {
		return errors.New("the inventory names no host")
	}
	return nil
}

func (o *Options) binary() string     { return o.BinDir + "/orch" }
func (o *Options) supervisor() string { return o.BinDir + "/orch-supervise" }
func (o *Options) lock() string       { return o.DataDir + ".lock" }

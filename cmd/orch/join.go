package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"orch/engine"
	"orch/engine/api"
	"orch/engine/api/apiconnect"
	"orch/engine/ca"
	"orch/engine/folder"
	"orch/engine/reach"
)

// defaultPort is an engine's.
const defaultPort = "4747"

// hostOptions are what `orch cluster init` and `orch join` have in common.
type hostOptions struct {
	name, advertise, listen string
	foreground              bool
}

func (o *hostOptions) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.name, "name", "", "`name` of this node (default its host name)")
	cmd.Flags().StringVar(&o.advertise, "advertise", "", "`HOST[:PORT]` where other hosts reach this one (default its address, port "+defaultPort+")")
	cmd.Flags().StringVar(&o.listen, "listen", "", "`address` to listen on as an engine (default all, with the port of --advertise)")
	cmd.Flags().BoolVar(&o.foreground, "foreground", false, "stay in the foreground instead of starting a daemon")
}

// settle fills in what wasn't said. toward is an address of another engine,
// empty for the first.
func (o *hostOptions) settle(toward string) error {
	if o.name == "" {
		name, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("cannot name this node: %w; use --name", err)
		}
		o.name = name
	}
	if o.advertise == "" {
		address, err := ownAddress(toward)
		if err != nil {
			return err
		}
		o.advertise = address
	}
	o.advertise = withPort(o.advertise)
	host, port, err := net.SplitHostPort(o.advertise)
	if err != nil || host == "" {
		return &exitError{2, fmt.Sprintf("orch: --advertise %q: want HOST or HOST:PORT", o.advertise)}
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		return &exitError{2, fmt.Sprintf("orch: --advertise %s: other hosts can't reach that address; give this host's own", o.advertise)}
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return &exitError{2, fmt.Sprintf("orch: --advertise %s: %q is no port", o.advertise, port)}
	}
	if o.listen == "" {
		o.listen = net.JoinHostPort("", port)
	}
	return nil
}

// withPort adds the default port where there is none.
func withPort(address string) string {
	if _, _, err := net.SplitHostPort(address); err == nil {
		return address
	}
	return net.JoinHostPort(strings.Trim(address, "[]"), defaultPort)
}

// ownAddress is the one that this host uses toward another, or its only one.
func ownAddress(toward string) (string, error) {
	if toward != "" {
		c, err := net.Dial("udp", toward) // sends nothing
		if err != nil {
			return "", fmt.Errorf("cannot find this host's address: %w; use --advertise", err)
		}
		defer c.Close()
		host, _, err := net.SplitHostPort(c.LocalAddr().String())
		return host, err
	}
	all, err := net.InterfaceAddrs()
	if err != nil {
		return "", fmt.Errorf("cannot find this host's address: %w; use --advertise", err)
	}
	var found []string
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() && n.IP.To4() != nil {
			found = append(found, n.IP.String())
		}
	}
	switch len(found) {
	case 0:
		return "", errors.New("this host has no address that others could reach; use --advertise")
	case 1:
		return found[0], nil
	}
	return "", &exitError{2, "orch: this host has several addresses (" + strings.Join(found, ", ") + "): say with --advertise which one the others reach"}
}

// begin lets change make this host a node, and runs its daemon.
func (o *hostOptions) begin(cmd *cobra.Command, change func(*folder.Folder) error) error {
	dir, err := home()
	if err != nil {
		return err
	}
	if err := o.prepare(dir, change); err != nil {
		return err
	}
	if o.foreground {
		d, err := openDaemon(dir, os.Stderr, false)
		if err != nil {
			return err
		}
		defer d.Close()
		if err := d.Run(cmd.Context()); cmd.Context().Err() == nil {
			return d.Left(err)
		}
		return nil
	}
	_, err = startDaemon(cmd.Context(), dir, "agent")
	return err
}

func (o *hostOptions) prepare(dir string, change func(*folder.Folder) error) error {
	f, err := folder.Open(dir)
	if err != nil {
		var used *folder.InUseError
		if m := memberOf(dir); errors.As(err, &used) && m != nil {
			return fmt.Errorf("this host is in cluster %q already, as node %q: `orch cluster leave` first", m.ClusterName, m.Name)
		}
		return err
	}
	defer f.Close()
	if m := f.Membership(); m != nil {
		return fmt.Errorf("this host is in cluster %q already, as node %q: `orch agent` runs it, `orch cluster leave --force` forgets it", m.ClusterName, m.Name)
	}
	if err := change(f); err != nil {
		return err
	}
	return f.SetSettings(folder.Settings{Listen: o.listen, Advertise: o.advertise})
}

func memberOf(dir string) *api.Membership {
	f, err := folder.Read(dir)
	if err != nil {
		return nil
	}
	return f.Membership()
}

func clusterInit() *cobra.Command {
	o := &hostOptions{}
	var cluster string
	cmd := &cobra.Command{
		Use: "init", Short: "Begin a cluster with this host as its first engine", Args: exactly(),
		Long: `Make this host the first engine of a new cluster and start its daemon in the
background. Other hosts join with the command that ` + "`orch cluster token`" + ` prints.`,
		Example: "  orch cluster init --advertise 10.0.0.11",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.settle(""); err != nil {
				return err
			}
			err := o.begin(cmd, func(f *folder.Folder) error { return engine.Found(f, cluster, o.name, o.advertise) })
			if err != nil || o.foreground {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), `Cluster %q runs, with node %q at %s as its first engine.
Let others in:  orch cluster token agent     (a worker)
                orch cluster token engine    (two more, so that one may fail)
`, cluster, o.name, o.advertise)
			return nil
		},
	}
	o.flags(cmd)
	cmd.Flags().StringVar(&cluster, "cluster", "orch", "`name` of the cluster")
	return cmd
}

func joinCommand() *cobra.Command {
	o := &hostOptions{}
	var token string
	cmd := &cobra.Command{
		Use: "join --token TOKEN HOST[:PORT]...", Short: "Let this host join a cluster", Args: some("the address of an engine"),
		Long: `Make this host a node of the cluster whose engines are at the addresses (one is
enough), and start its daemon in the background. The token, which
` + "`orch cluster token`" + ` prints, says whether it becomes an engine or a worker, and
proves that the engine is the right one.`,
		Example: "  orch join --token ORCH-1-agent-… 10.0.0.11",
		RunE: func(cmd *cobra.Command, args []string) error {
			if token == "" {
				token = os.Getenv("ORCH_JOIN_TOKEN")
			}
			t, err := ca.ParseToken(token)
			if err != nil {
				return &exitError{2, "orch: " + err.Error()}
			}
			for i := range args {
				args[i] = withPort(args[i])
			}
			if err := o.settle(args[0]); err != nil {
				return err
			}
			var m *api.Membership
			err = o.begin(cmd, func(f *folder.Folder) error {
				var err error
				m, err = o.join(cmd.Context(), f, t, args)
				return err
			})
			if err != nil || o.foreground {
				return err
			}
			role := "a worker"
			if m.Role == string(ca.Engine) {
				role = "an engine"
			}
			fmt.Fprintf(cmd.OutOrStdout(), "This host is node %q, %s, of cluster %q.\n", m.Name, role, m.ClusterName)
			return nil
		},
	}
	o.flags(cmd)
	cmd.Flags().StringVar(&token, "token", "", "join `token` (default $ORCH_JOIN_TOKEN, which `ps` doesn't show)")
	return cmd
}

// join asks the cluster to let this host in.
func (o *hostOptions) join(ctx context.Context, f *folder.Folder, t ca.Token, addresses []string) (*api.Membership, error) {
	keys, err := f.Keys()
	if err != nil {
		return nil, err
	}
	csr, err := ca.Request(keys.Node)
	if err != nil {
		return nil, err
	}
	h := reach.New(func() []string { return addresses }, ca.JoinClient(t.CA))
	defer h.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	r, err := apiconnect.NewNodeServiceClient(h, reach.URL, connect.WithGRPC()).Join(ctx, connect.NewRequest(&api.JoinRequest{
		Token: t.String(), Csr: csr, NodeId: f.ID, Name: o.name, EngineAddress: o.advertise, Version: version,
	}))
	if err != nil {
		return nil, fmt.Errorf("cannot join: %s", explain(err))
	}
	return r.Msg, f.SetMembership(r.Msg)
}

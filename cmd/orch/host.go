package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"orch/cmd/internal/socket"
	"orch/engine"
	"orch/engine/api"
	"orch/engine/ca"
	"orch/engine/folder"
)

// hostCommand has what bootstrap and ssh contexts ask of a host.
func hostCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use: "host", Short: "What programs ask of this host", Hidden: true,
		PersistentPreRunE: func(*cobra.Command, []string) error { return useHome(dir) },
	}
	cmd.PersistentFlags().StringVar(&dir, "dir", "", "data `folder` of this host (default $ORCH_HOME)")
	cmd.AddCommand(hostPrepare(), hostInit(), hostInstall(), hostStatusCommand(), hostLeave(), hostOperator(), hostStdio())
	return cmd
}

// prepared is what `orch host prepare` prints.
type prepared struct {
	State     string `json:"state"` // new | founder | member
	NodeID    string `json:"node_id"`
	ClusterID string `json:"cluster_id,omitempty"`
	Role      string `json:"role,omitempty"`
	CSR       []byte `json:"csr"` // PKCS #10, DER
	Version   string `json:"version"`
}

func hostPrepare() *cobra.Command {
	o := &hostOptions{}
	cmd := &cobra.Command{
		Use: "prepare", Short: "Make this host's id and key, and print a certificate request", Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := home()
			if err != nil {
				return err
			}
			f, err := folder.Open(dir)
			var used *folder.InUseError
			if errors.As(err, &used) {
				f, err = folder.Read(dir)
			}
			if err != nil {
				return err
			}
			defer f.Close()
			keys, err := f.Keys()
			if err != nil {
				return err
			}
			m := f.Membership()
			p := prepared{State: "new", NodeID: f.ID, ClusterID: m.GetClusterId(), Role: m.GetRole(), Version: version}
			switch {
			case keys.Authority != nil:
				p.State = "founder"
			case m != nil:
				p.State = "member"
			}
			if p.CSR, err = ca.Request(keys.Node); err != nil {
				return err
			}
			if m == nil && o.advertise != "" {
				if err := o.settle(""); err != nil {
					return err
				}
				if err := f.SetSettings(folder.Settings{Listen: o.listen, Advertise: o.advertise}); err != nil {
					return err
				}
			}
			return json.NewEncoder(cmd.OutOrStdout()).Encode(p)
		},
	}
	o.flags(cmd)
	return cmd
}

func hostInit() *cobra.Command {
	o := &hostOptions{}
	var cluster string
	cmd := &cobra.Command{
		Use: "init", Short: "Make this host the founder of a cluster, without starting it", Args: exactly(),
		RunE: func(*cobra.Command, []string) error {
			if err := o.settle(""); err != nil {
				return err
			}
			dir, err := home()
			if err != nil {
				return err
			}
			m := memberOf(dir)
			if m != nil && m.ClusterName == cluster && m.Name == o.name {
				return nil
			}
			return o.prepare(dir, func(f *folder.Folder) error { return engine.Found(f, cluster, o.name, o.advertise) })
		},
	}
	o.flags(cmd)
	cmd.Flags().StringVar(&cluster, "cluster", "orch", "`name` of the cluster")
	return cmd
}

func hostInstall() *cobra.Command {
	return &cobra.Command{
		Use: "install", Short: "Take a membership (JSON) from standard input", Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := home()
			if err != nil {
				return err
			}
			b, err := io.ReadAll(cmd.InOrStdin())
			if err != nil {
				return err
			}
			m := &api.Membership{}
			if err := protojson.Unmarshal(b, m); err != nil {
				return fmt.Errorf("this is no membership: %w", err)
			}
			f, err := folder.Open(dir)
			if err != nil {
				return err
			}
			defer f.Close()
			if old := f.Membership(); old != nil && old.ClusterId != m.ClusterId {
				return fmt.Errorf("this host is in cluster %q already, as node %q", old.ClusterName, old.Name)
			}
			if m.NodeId != f.ID {
				return fmt.Errorf("this membership is node %s's; this host is %s", m.NodeId, f.ID)
			}
			return f.SetMembership(m)
		},
	}
}

func printMessage(cmd *cobra.Command, m proto.Message) error {
	b, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		return err
	}
	return printJSON(cmd, b)
}

func hostStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Print how this host's daemon is (JSON)", Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := home()
			if err != nil {
				return err
			}
			s, err := hostStatus(cmd.Context(), dir, func(*api.HostStatus) bool { return true })
			if errors.Is(err, errNoCluster) {
				return fmt.Errorf("no orch runs on this host with its data in %s", dir)
			}
			if err != nil {
				return err
			}
			return printMessage(cmd, s)
		},
	}
}

func hostLeave() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "leave", Short: "Stop this host's tasks and take it out of its cluster", Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error { return leave(cmd, force) },
	}
	cmd.Flags().BoolVar(&force, "force", false, "though the cluster doesn't agree, or can't be reached")
	return cmd
}

// leave takes this host out of its cluster and waits until its daemon ended.
func leave(cmd *cobra.Command, force bool) error {
	dir, err := home()
	if err != nil {
		return err
	}
	m := memberOf(dir)
	if m == nil && free(dir) {
		return errors.New("this host is in no cluster")
	}
	if free(dir) {
		if !force {
			return fmt.Errorf("orch doesn't run on this host: start it (`orch agent`) to leave in order, or use --force, which forgets cluster %q and leaves what runs", m.GetClusterName())
		}
		f, err := folder.Open(dir)
		if err != nil {
			return err
		}
		defer f.Close()
		return f.Leave()
	}
	_, host := socketClients(dir)
	if _, err := host.LeaveCluster(cmd.Context(), connect.NewRequest(&api.LeaveClusterRequest{Force: force})); err != nil {
		return err
	}
	return gone(cmd.Context())
}

func hostOperator() *cobra.Command {
	var name, role string
	cmd := &cobra.Command{
		Use: "operator", Short: "Sign an operator's request (base64 DER on standard input)", Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, err := io.ReadAll(cmd.InOrStdin())
			if err != nil {
				return err
			}
			csr, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(b)))
			if err != nil {
				return fmt.Errorf("the request is not base64: %w", err)
			}
			client, _, err := connectLocal(cmd.Context())
			if err != nil {
				return err
			}
			r, err := client.AddOperator(cmd.Context(), connect.NewRequest(&api.AddOperatorRequest{Name: name, Role: role, Csr: csr}))
			if err != nil {
				return err
			}
			return printMessage(cmd, r.Msg)
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "the operator's `name`")
	cmd.Flags().StringVar(&role, "role", "admin", "admin, deploy or view")
	return cmd
}

func hostStdio() *cobra.Command {
	return &cobra.Command{
		Use: "stdio", Short: "Connect standard input and output with this host's socket", Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := home()
			if err != nil {
				return err
			}
			c, err := socket.Dial(cmd.Context(), dir)
			if err != nil {
				return fmt.Errorf("no orch answers on this host: %w", err)
			}
			defer c.Close()
			ended := make(chan error, 2)
			go func() { _, err := io.Copy(c, os.Stdin); ended <- err }()  // ends with the process
			go func() { _, err := io.Copy(os.Stdout, c); ended <- err }() // ends with c
			return <-ended
		},
	}
}

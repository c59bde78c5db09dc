package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	"orch/cmd/internal/daemon"
	"orch/cmd/internal/socket"
	"orch/engine/api"
	"orch/engine/api/apiconnect"
	"orch/engine/ca"
	"orch/engine/durable"
	"orch/engine/reach"
)

// contextFlag is --context.
var contextFlag string

// localContext is this machine's own cluster.
const localContext = "local"

// savedContext is how an operator reaches a cluster: its engines with a
// certificate, or a host of it by ssh.
type savedContext struct {
	SSH         string          `json:"ssh,omitempty"`
	Credentials json.RawMessage `json:"credentials,omitempty"` // api.OperatorCredentials
	Key         string          `json:"key,omitempty"`         // PEM
}

// configDir is the folder of an operator's contexts.
func configDir() (string, error) {
	if dir := os.Getenv("ORCH_CONFIG"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("cannot find a folder for contexts: %w; set ORCH_CONFIG", err)
	}
	return filepath.Join(dir, "orch"), nil
}

func contextPath(name string) (string, error) {
	dir, err := configDir()
	switch {
	case err != nil:
		return "", err
	case name == "" || strings.ContainsAny(name, "/\\ ") || strings.HasPrefix(name, "."):
		return "", fmt.Errorf("%q can't be the name of a context", name)
	}
	return filepath.Join(dir, "contexts", name+".json"), nil
}

// currentContext is the one to use; empty: this machine's own cluster.
func currentContext() (string, error) {
	name := contextFlag
	if name == "" {
		name = os.Getenv("ORCH_CONTEXT")
	}
	if name == "" {
		if dir, err := configDir(); err == nil {
			b, err := os.ReadFile(filepath.Join(dir, "current"))
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return "", fmt.Errorf("cannot read which context is in use: %w", err)
			}
			name = strings.TrimSpace(string(b))
		}
	}
	if name == localContext {
		return "", nil
	}
	return name, nil
}

func useContext(name string) error {
	dir, err := configDir()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("cannot keep which context is in use: %w", err)
	}
	return durable.WriteFile(filepath.Join(dir, "current"), []byte(name+"\n"), 0o600)
}

func readContext(name string) (*savedContext, error) {
	if strings.HasPrefix(name, "ssh://") {
		return &savedContext{SSH: name}, nil
	}
	path, err := contextPath(name)
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("there is no context %q: `orch context ls` lists them", name)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read context %q: %w", name, err)
	}
	c := &savedContext{}
	if err := json.Unmarshal(b, c); err != nil || c.SSH == "" && c.Key == "" {
		return nil, fmt.Errorf("context %q in %s is damaged: import it again", name, path)
	}
	return c, nil
}

func writeContext(name string, c *savedContext) error {
	path, err := contextPath(name)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("cannot keep context %q: %w", name, err)
	}
	b, err := json.MarshalIndent(c, "", "  ")
	if err == nil {
		err = durable.WriteFile(path, append(b, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("cannot keep context %q: %w", name, err)
	}
	return nil
}

// saveContext keeps credentials under a name and uses them from now on.
func saveContext(name string, creds *api.OperatorCredentials, keyPEM []byte) error {
	c, err := newContext(creds, keyPEM)
	if err != nil {
		return err
	}
	if err := writeContext(name, c); err != nil {
		return err
	}
	return useContext(name)
}

func newContext(creds *api.OperatorCredentials, keyPEM []byte) (*savedContext, error) {
	b, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(creds)
	return &savedContext{Credentials: b, Key: string(keyPEM)}, err
}

func (c *savedContext) credentials() (*api.OperatorCredentials, error) {
	creds := &api.OperatorCredentials{}
	err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(c.Credentials, creds)
	return creds, err
}

func parseKeyPEM(text string) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, errors.New("its key can't be read")
	}
	return ca.ParseKey(block.Bytes)
}

func keyPEM(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), err
}

// dialContext makes a client of a context, or of ssh://[user@]host[:port].
func dialContext(ctx context.Context, name string) (clusterClient, error) {
	c, err := readContext(name)
	if err != nil {
		return nil, err
	}
	if c.SSH != "" {
		h := socket.Client(func(context.Context) (net.Conn, error) { return dialSSH(c.SSH) })
		return apiconnect.NewClusterServiceClient(h, socket.URL, clientOptions()), nil
	}
	creds, err := c.credentials()
	if err != nil {
		return nil, fmt.Errorf("context %q is damaged: %w", name, err)
	}
	key, err := parseKeyPEM(c.Key)
	if err != nil {
		return nil, fmt.Errorf("context %q is damaged: %w", name, err)
	}
	client, wallet, err := dialEngines(creds, key)
	if err != nil {
		return nil, fmt.Errorf("cannot use context %q: %w", name, err)
	}
	renewed := renewOperator(ctx, client, wallet, key)
	if renewed == nil {
		return client, nil
	}
	if next, err := newContext(renewed, []byte(c.Key)); err == nil {
		_ = writeContext(name, next) // the next command tries again
	}
	client, _, err = dialEngines(renewed, key) // the connection was made with the old one
	return client, err
}

// dialEngines makes a client of credentials.
func dialEngines(creds *api.OperatorCredentials, key *ecdsa.PrivateKey) (clusterClient, *ca.Wallet, error) {
	wallet, err := ca.NewWallet(ca.Credentials{Key: key, Certificate: creds.Certificate, Roots: creds.Roots, Bridges: creds.Bridges})
	if err != nil {
		return nil, nil, err
	}
	var addresses []string
	for _, e := range creds.Engines {
		addresses = append(addresses, e.Address)
	}
	h := reach.New(func() []string { return addresses }, wallet.Client(ca.ProtoHTTP))
	return apiconnect.NewClusterServiceClient(h, reach.URL, clientOptions()), wallet, nil
}

// renewOperator gets a new certificate when half of the old one's life is
// over, or its CA is replaced; nil otherwise.
func renewOperator(ctx context.Context, client clusterClient, wallet *ca.Wallet, key *ecdsa.PrivateKey) *api.OperatorCredentials {
	leaf := wallet.Leaf()
	creds := wallet.Credentials()
	half := leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 2)
	if time.Now().Before(half) && len(creds.Roots) == 1 && !renewAsked(ctx, client) {
		return nil
	}
	csr, err := ca.Request(key)
	if err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	r, err := client.RenewOperator(ctx, connect.NewRequest(&api.RenewOperatorRequest{Csr: csr}))
	if err != nil {
		return nil // what the operator asked for fails for the same reason, and says so
	}
	return r.Msg
}

// renewAsked says that the cluster knows the key, but not the certificate's
// CA any more.
func renewAsked(ctx context.Context, client clusterClient) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, err := client.Info(ctx, connect.NewRequest(&api.InfoRequest{}))
	var refused *connect.Error
	return errors.As(err, &refused) && refused.Meta().Get(api.ReasonHeader) == api.ReasonRenew
}

// dialSSH lets the system's ssh run `orch host stdio` on an engine's host.
func dialSSH(url string) (net.Conn, error) {
	cmd := exec.Command("ssh", "-T", url, "orch", "host", "stdio")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("cannot run ssh: %w", err)
	}
	return &pipeConn{in, out, cmd}, nil
}

// pipeConn is a connection over a command's standard streams.
type pipeConn struct {
	io.WriteCloser
	out io.ReadCloser
	cmd *exec.Cmd
}

func (c *pipeConn) Read(p []byte) (int, error) { return c.out.Read(p) }

func (c *pipeConn) Close() error {
	err := errors.Join(c.WriteCloser.Close(), c.out.Close())
	_ = c.cmd.Process.Kill() // it ends by itself, or hangs
	_ = c.cmd.Wait()
	return err
}

type pipeAddr struct{}

func (pipeAddr) Network() string { return "ssh" }
func (pipeAddr) String() string  { return "ssh" }

func (c *pipeConn) LocalAddr() net.Addr              { return pipeAddr{} }
func (c *pipeConn) RemoteAddr() net.Addr             { return pipeAddr{} }
func (c *pipeConn) SetDeadline(time.Time) error      { return nil }
func (c *pipeConn) SetReadDeadline(time.Time) error  { return nil }
func (c *pipeConn) SetWriteDeadline(time.Time) error { return nil }

func contextCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "context", Short: "Choose the cluster that commands are for",
		Long: `A context is how you reach a cluster: its engines' addresses and a certificate of
yours, or ssh to one of its engines' hosts. ` + "`orch bootstrap`" + ` saves one; an admin
makes one for somebody else with ` + "`orch operator add`" + `. Every command takes
--context NAME, or $ORCH_CONTEXT; ssh://[user@]host works as a name, too. The
context "local" is the cluster of this machine.`,
	}
	cmd.AddCommand(contextLs(), contextUse(), contextAdd(), contextImport(), contextRm())
	return cmd
}

func contextNames() ([]string, error) {
	dir, err := configDir()
	if err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(dir, "contexts", "*.json"))
	if err != nil {
		return nil, err
	}
	names := []string{localContext}
	for _, f := range files {
		names = append(names, strings.TrimSuffix(filepath.Base(f), ".json"))
	}
	return names, nil
}

func contextLs() *cobra.Command {
	return &cobra.Command{Use: "ls", Short: "List contexts; * marks the one in use", Args: exactly(), RunE: func(cmd *cobra.Command, _ []string) error {
		names, err := contextNames()
		if err != nil {
			return err
		}
		current, err := currentContext()
		if err != nil {
			return err
		}
		if current == "" {
			current = localContext
		}
		t := &table{header: []string{"", "NAME", "CLUSTER", "ROLE", "REACHED BY"}}
		for _, name := range names {
			mark, cluster, role, by := "", "", "admin", "this machine"
			if name == current {
				mark = "*"
			}
			if name != localContext {
				c, err := readContext(name)
				if err != nil {
					return err
				}
				if by = c.SSH; by == "" {
					creds, err := c.credentials()
					if err != nil {
						return fmt.Errorf("context %q is damaged: %w", name, err)
					}
					cluster, role, by = creds.ClusterName, creds.Role, daemon.Names(creds.Engines)
				}
			}
			t.add(mark, name, cluster, role, by)
		}
		return t.print(cmd, "table")
	}}
}

func contextUse() *cobra.Command {
	return &cobra.Command{Use: "use NAME", Short: "Use a context from now on", Args: exactly("a context's name"), RunE: func(_ *cobra.Command, args []string) error {
		if args[0] != localContext {
			if _, err := readContext(args[0]); err != nil {
				return err
			}
		}
		return useContext(args[0])
	}}
}

func contextAdd() *cobra.Command {
	return &cobra.Command{
		Use: "add NAME ssh://[USER@]HOST[:PORT]", Short: "Add a context that reaches an engine's host by ssh",
		Args: exactly("a name", "where to reach it: ssh://[user@]host[:port]"),
		RunE: func(_ *cobra.Command, args []string) error {
			if !strings.HasPrefix(args[1], "ssh://") {
				return &exitError{2, fmt.Sprintf("orch: %q: want ssh://[user@]host[:port]; a file of `orch operator add` is taken by `orch context import`", args[1])}
			}
			return writeContext(args[0], &savedContext{SSH: args[1]})
		},
	}
}

func contextImport() *cobra.Command {
	return &cobra.Command{
		Use: "import NAME FILE", Short: "Add the context that an admin made with `orch operator add`", Args: exactly("a name", "a file"),
		RunE: func(_ *cobra.Command, args []string) error {
			b, err := os.ReadFile(args[1])
			if err != nil {
				return fmt.Errorf("cannot read the context: %w", err)
			}
			c := &savedContext{}
			if err := json.Unmarshal(b, c); err != nil || c.Key == "" {
				return fmt.Errorf("%s is no context: it should be what `orch operator add` wrote", args[1])
			}
			if _, err := c.credentials(); err != nil {
				return fmt.Errorf("%s is damaged: %w", args[1], err)
			}
			return writeContext(args[0], c)
		},
	}
}

func contextRm() *cobra.Command {
	return &cobra.Command{Use: "rm NAME", Short: "Forget a context", Args: exactly("a context's name"), RunE: func(_ *cobra.Command, args []string) error {
		names, err := contextNames()
		if err != nil {
			return err
		}
		if args[0] == localContext || !slices.Contains(names, args[0]) {
			return fmt.Errorf("there is no context %q to forget", args[0])
		}
		path, err := contextPath(args[0])
		if err != nil {
			return err
		}
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("cannot forget context %q: %w", args[0], err)
		}
		if current, err := currentContext(); err == nil && current == args[0] && contextFlag == "" && os.Getenv("ORCH_CONTEXT") == "" {
			return useContext(localContext)
		}
		return nil
	}}
}

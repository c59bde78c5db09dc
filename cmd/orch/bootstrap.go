package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"orch/cmd/internal/socket"
	"orch/engine/api"
	"orch/engine/api/apiconnect"
	"orch/engine/bootstrap"
	"orch/engine/ca"
)

// bootstrapFlags are those of bootstrap and upgrade.
type bootstrapFlags struct {
	bootstrap.Options
	dialer    bootstrap.Dialer
	join      string
	ssh       string
	binaries  map[string]*string
	askSudo   bool
	output    string
	yes, rest bool
	context   string // that was saved
}

func bootstrapCommand() *cobra.Command {
	f := &bootstrapFlags{}
	cmd := &cobra.Command{
		Use:   "bootstrap HOSTS.TXT",
		Short: "Make hosts that answer by SSH into a cluster",
		Long: `Make bare Linux hosts that answer by SSH into a cluster, or add them to one.

HOSTS.TXT names a host a line; a program that prints such lines, or "-" for
standard input, is as good:

  [user@]host[:port] [role=engine|agent] [name=n1] [label.disk=ssd]
      [key=~/.ssh/id] [jump=bastion] [addr=10.0.0.5] [hostkey=SHA256:…]
  @more.txt                        # another file of hosts

~/.ssh/config, ssh-agent and known_hosts count as they do for ssh; what Go's
client can't do (ProxyCommand, Match exec, PKCS#11) the system's ssh does. The
user must be root, or become it by sudo.

All hosts are looked at before one is changed. What is done already is left
alone: run it again to go on after a failure, to repair, to change labels. A
host that fails doesn't stop the others; it is written to hosts.failed.txt.

Exit codes: 0 all hosts are nodes; 1 there is no cluster, with the reason; 2 some
hosts failed.`,
		Args: exactly("an inventory, a file of hosts"),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0]) },
	}
	f.flags(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.Cluster, "cluster", "", "`name` of the cluster and of its context (default orch)")
	flags.StringVar(&f.join, "join", "", "add the hosts to the cluster of this saved `context`")
	flags.IntVar(&f.Port, "port", 4747, "the engines' `port`")
	flags.BoolVar(&f.InstallDocker, "install-docker", false, "install Docker where it is missing, from the distribution's packages")
	flags.BoolVar(&f.RequireDocker, "require-docker", false, "a host without Docker is an error, not a warning")
	flags.BoolVar(&f.rest, "reset", false, "take orch off the hosts again, with its tasks and data")
	flags.BoolVar(&f.yes, "yes", false, "don't ask before --reset")
	return cmd
}

func (f *bootstrapFlags) flags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.DataDir, "data-dir", "/var/lib/orch", "data `folder` on the hosts")
	flags.StringVar(&f.BinDir, "bin-dir", "/usr/local/bin", "`folder` of the binary on the hosts")
	flags.IntVar(&f.Parallel, "parallel", 10, "how many hosts at a time")
	flags.BoolVar(&f.DryRun, "dry-run", false, "show what would be done, and change nothing")
	flags.BoolVar(&f.dialer.AcceptNew, "accept-new", false, "trust the key of a host that isn't in known_hosts, and add it there")
	flags.StringVar(&f.ssh, "ssh", "auto", "auto, or system: only ever use the system's ssh")
	flags.StringVarP(&f.dialer.ConfigFile, "ssh-config", "F", "", "ssh's configuration `file` (default ~/.ssh/config and /etc/ssh/ssh_config)")
	flags.BoolVar(&f.askSudo, "ask-sudo-password", false, "ask for the password of sudo, once (default $ORCH_SUDO_PASSWORD)")
	f.binaries = map[string]*string{}
	for _, arch := range []string{"amd64", "arm64"} {
		f.binaries[arch] = flags.String("binary-"+arch, "", "orch for hosts of this architecture, a `file`")
	}
	flags.StringVarP(&f.output, "output", "o", "text", "text, or json: a line an event")
}

// prepare reads the inventory and all that the flags name.
func (f *bootstrapFlags) prepare(cmd *cobra.Command, inventory string) (*bootstrapProgress, error) {
	if f.output != "text" && f.output != "json" {
		return nil, &exitError{2, fmt.Sprintf("orch: -o %s: want text or json", f.output)}
	}
	if f.ssh != "auto" && f.ssh != "system" {
		return nil, &exitError{2, fmt.Sprintf("orch: --ssh %s: want auto or system", f.ssh)}
	}
	hosts, err := bootstrap.Read(cmd.Context(), inventory, cmd.InOrStdin())
	if err != nil {
		return nil, &exitError{2, "orch: " + err.Error()}
	}
	f.Hosts = hosts
	f.Binaries = map[string]*bootstrap.Binary{}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("cannot find this binary, to upload it: %w", err)
	}
	if *f.binaries[runtime.GOARCH] == "" && runtime.GOOS == "linux" {
		*f.binaries[runtime.GOARCH] = self
	}
	for arch, path := range f.binaries {
		if *path == "" {
			continue
		}
		b, is, err := bootstrap.LoadBinary(*path)
		if err != nil {
			return nil, fmt.Errorf("cannot upload orch: %w", err)
		}
		if is != arch {
			return nil, &exitError{2, fmt.Sprintf("orch: --binary-%s: %s is for %s", arch, *path, is)}
		}
		f.Binaries[arch] = b
	}
	p := newBootstrapProgress(cmd.OutOrStdout(), f.output == "json", hosts)
	f.dialer.System = f.ssh == "system"
	if inventory != "-" && term.IsTerminal(int(os.Stdin.Fd())) {
		f.dialer.Ask = p.ask
	}
	f.Dial = f.dialer.Dial
	if password, ok := os.LookupEnv("ORCH_SUDO_PASSWORD"); ok {
		f.SudoPassword = func() (string, error) { return password, nil }
	} else if f.dialer.Ask != nil {
		f.SudoPassword = func() (string, error) { return p.ask("Password of sudo on the hosts: ") }
	} else if f.askSudo {
		return nil, errors.New("--ask-sudo-password: standard input is no terminal; set ORCH_SUDO_PASSWORD")
	}
	f.Report, f.Found = p.event, p.findings
	host, _ := os.Hostname()
	f.Owner = fmt.Sprintf("%s by %s@%s, process %d", cmd.CommandPath(), os.Getenv("USER"), host, os.Getpid())
	f.Connect = func(dial func(context.Context) (net.Conn, error)) bootstrap.Cluster {
		return askedCluster{apiconnect.NewClusterServiceClient(socket.Client(dial), socket.URL, clientOptions())}
	}
	if f.join != "" {
		client, err := dialContext(cmd.Context(), f.join)
		if err != nil {
			return nil, err
		}
		f.Join = askedCluster{client}
	}
	return p, nil
}

func (f *bootstrapFlags) run(cmd *cobra.Command, inventory string) error {
	p, err := f.prepare(cmd, inventory)
	if err != nil {
		return err
	}
	f.Credentials = f.saveOperator
	do := bootstrap.Run
	if f.rest {
		if err := f.confirm(cmd); err != nil {
			return err
		}
		do = bootstrap.Reset
	}
	r, err := do(cmd.Context(), f.Options)
	p.stop()
	if r == nil {
		return err
	}
	if f.DryRun {
		p.plans(r.Plans)
	}
	if len(r.Failed) > 0 && !f.DryRun {
		if e := f.writeFailed(cmd, inventory, r); e != nil {
			err = errors.Join(err, e)
		}
	}
	if err != nil {
		return err
	}
	p.summary(r, f.rest, f.DryRun)
	if len(r.Failed) > 0 {
		return &exitError{2, ""}
	}
	return nil
}

// confirm asks before all is taken away.
func (f *bootstrapFlags) confirm(cmd *cobra.Command) error {
	if f.yes || f.DryRun {
		return nil
	}
	if f.dialer.Ask == nil {
		return &exitError{2, "orch: --reset takes away tasks and data: --yes says that this is meant"}
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "Take orch, its tasks and its data off %d hosts? [yes/no] ", len(f.Hosts))
	line, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
	if err != nil || strings.TrimSpace(line) != "yes" {
		return &exitError{1, "orch: nothing was changed"}
	}
	return nil
}

const failedFile = "hosts.failed.txt"

// writeFailed leaves an inventory of the hosts to try again.
func (f *bootstrapFlags) writeFailed(cmd *cobra.Command, inventory string, r *bootstrap.Result) error {
	again := []string{cmd.CommandPath()}
	if f.rest {
		again = append(again, "--reset")
	} else if r.Cluster != "" {
		name := r.Cluster
		for _, other := range []string{f.context, f.join} {
			if other != "" {
				name = other
			}
		}
		again = append(again, "--join", name)
	}
	text := fmt.Sprintf("# Failed at %s, of %s. Again: %s %s\n", time.Now().Format(time.RFC3339), inventory, strings.Join(again, " "), failedFile)
	for _, h := range r.Failed {
		text += h.Line
		if h.Role != "" && !strings.Contains(h.Line, "role=") {
			text += " role=" + h.Role
		}
		text += "\n"
	}
	if err := os.WriteFile(failedFile, []byte(text), 0o644); err != nil {
		return fmt.Errorf("cannot keep the hosts that failed: %w", err)
	}
	path, _ := filepath.Abs(failedFile)
	fmt.Fprintf(cmd.ErrOrStderr(), "%d of %d hosts failed; they are in %s. When they are mended: %s %s\n", len(r.Failed), len(f.Hosts), path, strings.Join(again, " "), failedFile)
	return nil
}

// saveOperator sees to a context with which the cluster can be asked: one that
// works is kept, one of another cluster is not touched.
func (f *bootstrapFlags) saveOperator(ctx context.Context, cluster *api.Cluster, sign bootstrap.Sign) error {
	f.context = cluster.Name
	for n := 2; ; n++ {
		c, err := readContext(f.context)
		if err != nil { // none, or one that is damaged
			break
		}
		if creds, err := c.credentials(); c.SSH == "" && err == nil && creds.ClusterId == cluster.Id {
			if contextAnswers(ctx, f.context) {
				return useContext(f.context)
			}
			break
		}
		f.context = fmt.Sprintf("%s-%d", cluster.Name, n)
	}
	key, err := ca.NewKey()
	if err != nil {
		return err
	}
	csr, err := ca.Request(key)
	if err != nil {
		return err
	}
	secret, err := keyPEM(key)
	if err != nil {
		return err
	}
	creds, err := sign(ctx, operatorName(), csr)
	if err != nil {
		return err
	}
	return saveContext(f.context, creds, secret)
}

func contextAnswers(ctx context.Context, name string) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	client, err := dialContext(ctx, name)
	if err == nil {
		_, err = client.Info(ctx, connect.NewRequest(&api.InfoRequest{}))
	}
	return err == nil
}

// operatorName is who runs this, and where.
func operatorName() string {
	name := os.Getenv("USER")
	if name == "" {
		name = "admin"
	}
	if host, err := os.Hostname(); err == nil {
		host, _, _ = strings.Cut(host, ".")
		name += "-" + strings.ToLower(host)
	}
	return name
}

// askedCluster is a client as bootstrap wants it.
type askedCluster struct{ client clusterClient }

func (c askedCluster) Admit(ctx context.Context, a *api.AdmitRequest) (*api.Membership, error) {
	r, err := c.client.Admit(ctx, connect.NewRequest(a))
	if err != nil {
		return nil, err
	}
	return r.Msg, nil
}

func (c askedCluster) Info(ctx context.Context) (*api.InfoResponse, error) {
	r, err := c.client.Info(ctx, connect.NewRequest(&api.InfoRequest{}))
	if err != nil {
		return nil, err
	}
	return r.Msg, nil
}

func (c askedCluster) Nodes(ctx context.Context) ([]*api.Node, error) {
	r, err := c.client.ListNodes(ctx, connect.NewRequest(&api.ListNodesRequest{}))
	if err != nil {
		return nil, err
	}
	return r.Msg.Nodes, nil
}

func (c askedCluster) UpdateNode(ctx context.Context, u *api.UpdateNodeRequest) error {
	_, err := c.client.UpdateNode(ctx, connect.NewRequest(u))
	return err
}

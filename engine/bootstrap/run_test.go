package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"orch/engine/api"
)

// here is a Transport whose host is this machine.
type here struct{}

func (here) Run(ctx context.Context, command string, stdin io.Reader, stdout, stderr io.Writer) (int, error) {
	cmd := exec.CommandContext(ctx, "sh", "-c", command)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), nil
	}
	return 0, err
}
func (here) Dial(context.Context, string) (net.Conn, error) { return nil, errors.ErrUnsupported }
func (here) HostKey() string                                { return "" }
func (here) Close() error                                   { return nil }

// TestReach tries real ports of this machine.
func TestReach(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	seen := func(name, address, role string) *Seen {
		return &Seen{Host: &Host{Name: name, Addr: address, Role: role}, Facts: &Facts{}, shell: &shell{Transport: here{}}}
	}
	all := []*Seen{seen("a", "127.0.0.1", "engine"), seen("b", "127.0.0.2", "agent"), seen("c", "127.0.0.3", "agent")}
	o := &Options{Port: port, Parallel: 3}
	reach(t.Context(), all, o)
	at := joinHost("127.0.0.1", port)
	if len(all[0].Facts.Paths) != 0 || all[1].Facts.Paths[at] != "ok" || all[2].Facts.Paths[at] != "ok" {
		t.Errorf("%v %v %v", all[0].Facts.Paths, all[1].Facts.Paths, all[2].Facts.Paths)
	}
	out, err := all[0].shell.output(t.Context(), connect, nil, "127.0.0.1", fmt.Sprint(port))
	if err != nil || out != fmt.Sprintf("127.0.0.1 %d refused\n", port) {
		t.Errorf("the listener is left: %q, %v", out, err)
	}
}

func TestLockAndPut(t *testing.T) {
	dir := t.TempDir()
	o := &Options{DataDir: dir + "/some/data", Hosts: []*Host{{}}, Owner: "me"}
	r, err := begin(o)
	if err != nil {
		t.Fatal(err)
	}
	h := &hostRun{run: r, Seen: &Seen{Host: &Host{Name: "a"}, Facts: &Facts{}, shell: &shell{Transport: here{}}}}
	if err := h.acquire(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := h.acquire(t.Context()); err == nil || !strings.Contains(err.Error(), "somebody is at work on it: me, since") {
		t.Errorf("a second run: %v", err)
	}
	h.release(t.Context())
	if err := h.acquire(t.Context()); err != nil {
		t.Errorf("after it: %v", err)
	}
	if err := h.putText(t.Context(), dir+"/x/file", "hello\n", "640"); err != nil {
		t.Error(err)
	}
	if _, err := h.shell.output(t.Context(), put, strings.NewReader("cut sh"), dir+"/x/file", sum("cut short"), "640"); err == nil || !strings.Contains(err.Error(), "is not what was sent") {
		t.Errorf("a cut upload: %v", err)
	}
	out, err := h.shell.output(t.Context(), `cd "$1" && ls -A && stat -c %a file && cat file`, nil, dir+"/x")
	if err != nil || out != "file\n640\nhello\n" {
		t.Errorf("%q, %v", out, err)
	}
}

// canned is a host that answers the probe, and refuses all else.
type canned struct {
	here
	probe string
	log   *strings.Builder
	mu    *sync.Mutex
}

func (c canned) Run(_ context.Context, command string, stdin io.Reader, stdout, stderr io.Writer) (int, error) {
	switch {
	case strings.Contains(command, "orch-probe-begin"):
		fmt.Fprint(stdout, c.probe)
	case strings.Contains(command, "SSH_CONNECTION"):
	case strings.HasSuffix(command, "id -u' orch"):
		fmt.Fprintln(stdout, "0")
	case strings.Contains(command, "python3 -c"):
		return 1, nil
	default:
		c.mu.Lock()
		defer c.mu.Unlock()
		c.log.WriteString(command + "\n")
		fmt.Fprintln(stderr, "the disk is read-only")
		return 1, nil
	}
	return 0, nil
}

func world(t *testing.T, probes ...string) (*Options, *strings.Builder) {
	t.Helper()
	var log strings.Builder
	var mu sync.Mutex
	o := &Options{Binaries: map[string]*Binary{"amd64": {Path: "/none", Sum: "new", Size: 30 << 20}}}
	answers := map[string]string{}
	for i, p := range probes {
		addr := fmt.Sprintf("10.0.0.%d", i+1)
		o.Hosts = append(o.Hosts, &Host{Address: addr, Addr: addr, Name: fmt.Sprintf("n%d", i+1)})
		if p != "" {
			answers[addr] = fmt.Sprintf("orch-probe-begin\ntime=%d\nos=Linux\narch=x86_64\nhostname=n%d\nmachine=m%d\ninit=systemd\ncgroup=v2\ndocker=28\ndisk_kib=9999999\nmemory_kib=999999\nport=free\nhelpers=sha256sum bash\n%s\norch-probe-end\n",
				time.Now().Unix(), i, i, p)
		}
	}
	o.Dial = func(_ context.Context, h *Host) (Transport, string, error) {
		if answers[h.Address] == "" {
			return nil, "", errors.New("cannot reach it: no route\n  try: ssh -v x")
		}
		return canned{probe: answers[h.Address], log: &log, mu: &mu}, "root", nil
	}
	return o, &log
}

func TestNothingIsChangedBeforePreflightEnds(t *testing.T) {
	o, log := world(t, "x=1", "", "lock=bob since noon")
	o.DryRun = true
	r, err := Run(t.Context(), *o)
	if err != nil {
		t.Fatal(err)
	}
	if log.Len() > 0 {
		t.Errorf("it ran %s", log)
	}
	var got []string
	for _, f := range r.Findings {
		got = append(got, fmt.Sprintf("%s %v %s | %s", f.Host, f.Error, f.Text, f.Fix))
	}
	want := []string{"n2 true cannot reach it: no route | try: ssh -v x", "n3 true somebody is at work on it: bob since noon | wait for it; if that run is dead: rm -r /var/lib/orch.lock"}
	if d := cmp.Diff(want, got); d != "" || len(r.Plans) != 1 || len(r.Failed) != 2 {
		t.Errorf("%s\n%+v", d, r)
	}
}

func TestFounderFails(t *testing.T) {
	o, _ := world(t, "x=1", "x=1", "x=1")
	r, err := Run(t.Context(), *o)
	if err == nil || !strings.Contains(err.Error(), "could not be founded on n1, so no other host can join") || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("%v", err)
	}
	if len(r.Failed) != 3 || r.Changed != 0 || r.Cluster != "" {
		t.Errorf("%+v", r)
	}
}

func TestNoEngineIsLeft(t *testing.T) {
	o, log := world(t, "", "x=1")
	r, err := Run(t.Context(), *o)
	if err == nil || !strings.Contains(err.Error(), "nothing was changed") || len(r.Failed) != 2 || log.Len() > 0 {
		t.Errorf("%v %+v %s", err, r, log)
	}
}

func TestCheck(t *testing.T) {
	fine := func() *Facts {
		return &Facts{OS: "linux", Arch: "amd64", Hostname: "h", Init: "systemd", Cgroup: "v2", Docker: "28", Disk: 1 << 40, Memory: 1 << 34, Helpers: []string{"sha256sum"}, Packages: "apt-get"}
	}
	for name, c := range map[string]struct {
		change func(a, b *Seen, o *Options)
		want   string // of what is said about a; empty: nothing
	}{
		"fine":             {func(*Seen, *Seen, *Options) {}, ""},
		"os":               {func(a, _ *Seen, _ *Options) { a.Facts.OS = "freebsd" }, "error: it runs freebsd"},
		"other arch":       {func(a, _ *Seen, _ *Options) { a.Facts.Arch = "arm64" }, "--binary-arm64=PATH"},
		"odd arch":         {func(a, _ *Seen, _ *Options) { a.Facts.Arch = "riscv64" }, "runs on amd64 and arm64"},
		"no docker":        {func(a, _ *Seen, _ *Options) { a.Facts.Docker, a.Facts.DockerError = "", "denied" }, "warning: Docker does not answer: denied"},
		"docker required":  {func(a, _ *Seen, o *Options) { a.Facts.Docker, o.RequireDocker = "", true }, "error: Docker does not answer"},
		"docker installed": {func(a, _ *Seen, o *Options) { a.Facts.Docker, o.InstallDocker = "", true }, ""},
		"cannot install":   {func(a, _ *Seen, o *Options) { a.Facts.Docker, a.Facts.Packages, o.InstallDocker = "", "", true }, "install Docker by hand"},
		"port":             {func(a, _ *Seen, _ *Options) { a.Facts.PortTaken = true }, "port 4747 is taken, and not by orch"},
		"orch's port": {func(a, _ *Seen, _ *Options) {
			a.Facts.PortTaken, a.Facts.Status = true, &api.HostStatus{ClusterId: "c"}
		}, ""},
		"agent's port":  {func(a, _ *Seen, _ *Options) { a.Facts.PortTaken, a.Role = true, "agent" }, ""},
		"other cluster": {func(a, _ *Seen, _ *Options) { a.Facts.Status = &api.HostStatus{ClusterId: "x", ClusterName: "old"} }, `another cluster already, "old"`},
		"kept cluster":  {func(a, _ *Seen, _ *Options) { a.Facts.Kept = &identity{ClusterID: "x"} }, `another cluster already, "x"`},
		"clock":         {func(a, _ *Seen, _ *Options) { a.Facts.Skew = time.Minute }, "its clock is 1m0s ahead of the others"},
		"our clock":     {func(a, b *Seen, _ *Options) { a.Facts.Skew, b.Facts.Skew = time.Hour, time.Hour }, ""},
		"disk":          {func(a, _ *Seen, _ *Options) { a.Facts.Disk = 5 << 20 }, "error: 5 MiB are free for /var/lib/orch"},
		"memory":        {func(a, _ *Seen, _ *Options) { a.Facts.Memory = 99 << 20 }, "warning: it has 99 MiB"},
		"cgroups":       {func(a, _ *Seen, _ *Options) { a.Facts.Cgroup = "none" }, "warning: it has no cgroups"},
		"boot":          {func(a, _ *Seen, _ *Options) { a.Facts.Init = "none" }, "orch-supervise start"},
		"tools":         {func(a, _ *Seen, _ *Options) { a.Facts.Helpers = nil }, "no sha256sum"},
		"no name":       {func(a, _ *Seen, _ *Options) { a.Name, a.Facts.Hostname = "", "ä" }, "name= on its line"},
		"same name":     {func(a, b *Seen, _ *Options) { b.Name = "a" }, `two hosts are called "a": hosts:1 and hosts:2`},
		"same address":  {func(a, b *Seen, _ *Options) { b.Addr = a.Addr }, "the same host twice?"},
		"same machine":  {func(a, b *Seen, _ *Options) { a.Facts.Machine, b.Facts.Machine = "m", "m" }, "warning: it has the machine id of b"},
		"loopback":      {func(a, _ *Seen, _ *Options) { a.Addr = "127.0.0.1" }, "reaches it from itself alone"},
		"no way": {func(a, _ *Seen, _ *Options) {
			a.Facts.Paths = map[string]string{"10.0.0.2:4747": "no answer within 5 s"}
		}, "does not reach engine b at 10.0.0.2:4747: no answer"},
		"untried way": {func(a, _ *Seen, _ *Options) { a.Facts.Paths = map[string]string{"10.0.0.2:4747": "refused"} }, "warning: it could not be tried"},
		"a way":       {func(a, _ *Seen, _ *Options) { a.Facts.Paths = map[string]string{"10.0.0.2:4747": "ok"} }, ""},
	} {
		o := &Options{Hosts: []*Host{{}}, Binaries: map[string]*Binary{"amd64": {}}}
		if err := o.defaults(); err != nil {
			t.Fatal(err)
		}
		a := &Seen{Host: &Host{Name: "a", Addr: "10.0.0.1", Role: "engine", Source: "hosts:1"}, Facts: fine()}
		b := &Seen{Host: &Host{Name: "b", Addr: "10.0.0.2", Role: "engine", Source: "hosts:2"}, Facts: fine()}
		c.change(a, b, o)
		said := ""
		for _, f := range check([]*Seen{a, b}, o, "c") {
			if f.Host == a.Host {
				said += map[bool]string{true: "error: ", false: "warning: "}[f.Error] + f.Text + " | " + f.Fix + "\n"
			}
		}
		if c.want == "" && said != "" || !strings.Contains(said, c.want) || strings.Count(said, "\n") > 1 {
			t.Errorf("%s: %q; want %q", name, said, c.want)
		}
	}
}

func TestPlan(t *testing.T) {
	o := &Options{Hosts: []*Host{{}}, Binaries: map[string]*Binary{"amd64": {Sum: "new", Size: 30 << 20}}}
	if err := o.defaults(); err != nil {
		t.Fatal(err)
	}
	done := func() *Facts {
		return &Facts{Arch: "amd64", Init: "systemd", Docker: "28", Binary: "new", Unit: sum(o.unit()), Enabled: true, Status: &api.HostStatus{ClusterId: "c", NodeId: "1"}}
	}
	node := func() *api.Node {
		return &api.Node{Id: "1", Role: "agent", Labels: map[string]string{"disk": "ssd", "more": "x"}}
	}
	for name, c := range map[string]struct {
		change  func(s *Seen, f *Facts, n *api.Node)
		founder bool
		bare    bool
		want    string
	}{
		"done":         {want: ""},
		"bare":         {bare: true, want: "upload service identity admit start verify"},
		"bare founder": {bare: true, founder: true, want: "upload service identity found start verify labels"},
		"binary":       {change: func(_ *Seen, f *Facts, _ *api.Node) { f.Binary = "old" }, want: "upload restart verify"},
		"unit":         {change: func(_ *Seen, f *Facts, _ *api.Node) { f.Unit = "old" }, want: "service restart verify"},
		"disabled":     {change: func(_ *Seen, f *Facts, _ *api.Node) { f.Enabled = false }, want: "service restart verify"},
		"supervisor":   {change: func(_ *Seen, f *Facts, _ *api.Node) { f.Init, f.Supervisor = "cron", "old" }, want: "service restart verify"},
		"stopped":      {change: func(_ *Seen, f *Facts, _ *api.Node) { f.Status, f.Kept = nil, &identity{ClusterID: "c"} }, want: "start verify"},
		"joins":        {change: func(_ *Seen, f *Facts, _ *api.Node) { f.Status = &api.HostStatus{State: "starting"} }, want: "identity admit restart verify"},
		"label":        {change: func(s *Seen, _ *Facts, _ *api.Node) { s.Labels = map[string]string{"disk": "hdd"} }, want: "labels"},
		"role":         {change: func(s *Seen, _ *Facts, _ *api.Node) { s.Role = "engine" }, want: "role"},
	} {
		s := &Seen{Host: &Host{Name: "a", Addr: "10.0.0.1", Role: "agent", Labels: map[string]string{"disk": "ssd"}}, Facts: done()}
		n := node()
		if c.bare {
			s.Facts, n = &Facts{Arch: "amd64", Init: "systemd", Docker: "28"}, nil
		}
		if c.change != nil {
			c.change(s, s.Facts, n)
		}
		var kinds []string
		for _, op := range plan(s, o, c.founder, n) {
			kinds = append(kinds, op.Kind)
		}
		if got := strings.Join(kinds, " "); got != c.want {
			t.Errorf("%s: %s; want %s", name, got, c.want)
		}
	}
}

func TestUpgradeOrder(t *testing.T) {
	host := func(name, role string) *Seen {
		return &Seen{Host: &Host{Name: name}, Facts: &Facts{Status: &api.HostStatus{ClusterId: "c", NodeId: name, Role: role}}}
	}
	var got []string
	for _, batch := range order([]*Seen{host("e1", "engine"), host("a1", "agent"), host("e2", "engine"), host("a2", "agent"), host("e3", "engine")}, "e1") {
		words := ""
		for _, s := range batch {
			words += s.Name + " "
		}
		got = append(got, words)
	}
	if d := cmp.Diff([]string{"a1 a2 ", "e2 ", "e3 ", "e1 "}, got); d != "" {
		t.Error(d)
	}
	info := &api.InfoResponse{Leader: "e1", Engines: []*api.EngineStatus{{Name: "e1", State: "leader"}, {Name: "e2", State: "unreachable", Reason: "gone"}}}
	if err := whole(info); err == nil || !strings.Contains(err.Error(), "engine e2 is unreachable: gone") {
		t.Errorf("%v", err)
	}
}

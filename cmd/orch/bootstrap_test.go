package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"orch/cmd/internal/hosts"
)

// operator is someone with a folder, an inventory and keys.
type operator struct {
	t    *testing.T
	dir  string
	orch string
	ssh  string
}

// run runs orch in the operator's folder and returns all that it said.
func (o *operator) run(want int, args ...string) string {
	o.t.Helper()
	cmd := exec.CommandContext(o.t.Context(), o.orch, args...)
	cmd.Dir = o.dir
	cmd.Env = append(os.Environ(), "HOME="+o.dir, "ORCH_CONFIG="+o.dir+"/contexts", "ORCH_HOME="+o.dir+"/none", "SSH_AUTH_SOCK=", "USER=tester")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		o.t.Fatal(err)
	}
	o.t.Logf("orch %s: exit %d\n%s", strings.Join(args, " "), code, &out)
	if code != want {
		o.t.Fatalf("exit code %d, want %d", code, want)
	}
	return out.String()
}

func (o *operator) file(name, text string) string {
	o.t.Helper()
	path := filepath.Join(o.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		o.t.Fatal(err)
	}
	return path
}

func says(t *testing.T, text string, wants ...string) {
	t.Helper()
	for _, w := range wants {
		if !strings.Contains(text, w) {
			t.Errorf("it does not say %q", w)
		}
	}
}

func bootstrapHosts(t *testing.T, n int) (*hosts.Set, *operator) {
	t.Helper()
	if testing.Short() {
		t.Skip("hosts take seconds")
	}
	if err := hosts.Missing(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	set, err := hosts.Up(t.Context(), n, hosts.Options{SSH: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := set.Close(); err != nil {
			t.Error(err)
		}
	})
	o := &operator{t: t, dir: t.TempDir(), orch: filepath.Join(bin, "orch")}
	o.ssh = o.file("ssh_config", fmt.Sprintf("User root\nIdentityFile %s\nUserKnownHostsFile %s\nGlobalKnownHostsFile none\nConnectTimeout 5\n", set.KeyFile(), set.KnownHosts()))
	return set, o
}

// TestBootstrapThreeHosts: bare hosts become a cluster, and bare again.
func TestBootstrapThreeHosts(t *testing.T) {
	set, o := bootstrapHosts(t, 3)
	var lines strings.Builder
	for i, h := range set.Hosts {
		fmt.Fprintf(&lines, "%s label.rack=r%d\n", h.Addr, i)
	}
	inventory := o.file("hosts.txt", lines.String())

	// What is planned is not done.
	out := o.run(0, "bootstrap", "-F", o.ssh, "--dry-run", inventory)
	says(t, out, "no line says role=: 3 engines (n1, n2, n3)", `found cluster "orch" as its first engine`, `admit it as engine "n3"`, "Nothing was changed")
	// Somebody in between: nothing is changed.
	o.file("known", strings.ReplaceAll(read(t, set.KnownHosts()), set.Hosts[1].Addr, "x")+set.Hosts[1].Addr+" "+strings.SplitN(read(t, set.KeyFile()+".pub"), " orch", 2)[0])
	wrong := o.file("wrong_config", strings.ReplaceAll(read(t, o.ssh), set.KnownHosts(), filepath.Join(o.dir, "known")))
	out = o.run(2, "bootstrap", "-F", wrong, "--dry-run", inventory)
	says(t, out, "host key of "+set.Hosts[1].Addr+":22 has CHANGED", "ssh-keygen -R")

	// A firewall between hosts is found before orch is there.
	wall := func(flag string) {
		if out, err := set.Hosts[0].Command(t.Context(), "iptables", flag, "INPUT", "-p", "tcp", "--dport", "4747", "-s", set.Hosts[1].Addr, "-j", "DROP").CombinedOutput(); err != nil {
			t.Fatalf("iptables: %v: %s", err, out)
		}
	}
	wall("-A")
	out = o.run(2, "bootstrap", "-F", o.ssh, "--dry-run", inventory)
	says(t, out, "it does not reach engine n1 at "+set.Hosts[0].Addr+":4747: no answer within 5 s")
	wall("-D")

	// One host is out of reach: the others become nodes.
	if err := set.Hosts[2].Cut(); err != nil {
		t.Fatal(err)
	}
	out = o.run(2, "bootstrap", "-F", o.ssh, inventory)
	says(t, out, "cannot reach", "try: ssh -v", "1 of 3 hosts failed")
	if failed := read(t, filepath.Join(o.dir, "hosts.failed.txt")); !strings.Contains(failed, "\n"+set.Hosts[2].Addr+" label.rack=r2 role=engine\n") {
		t.Errorf("hosts.failed.txt: %s", failed)
	}
	if err := set.Hosts[2].Heal(); err != nil {
		t.Fatal(err)
	}
	o.run(0, "bootstrap", "-F", o.ssh, "--join", "orch", "hosts.failed.txt")

	out = o.run(0, "node", "ls")
	says(t, out, "n1", "n2", "n3")
	if strings.Count(out, " up") < 3 {
		t.Error("not all nodes are up")
	}
	out = o.run(0, "node", "inspect", "n3")
	says(t, out, "r2", "SHA256:")
	out = o.run(0, "node", "inspect", "n1")
	says(t, out, "r0")

	// ssh alone is enough to reach a cluster; it is the system's, with its
	// configuration.
	if err := os.Chmod(o.file("ssh", "#!/bin/sh\nexec /usr/bin/ssh -F "+o.ssh+" \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", o.dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	says(t, o.run(0, "--context", "ssh://root@"+set.Hosts[1].Addr, "node", "ls"), "n1", "n2", "n3")
	o.run(0, "context", "add", "over-ssh", "ssh://root@"+set.Hosts[2].Addr+":22")
	says(t, o.run(0, "--context", "over-ssh", "cluster", "info"), "n3", "leader")
	if out := o.run(1, "--context", "ssh://root@"+set.Hosts[1].Addr+":9", "node", "ls"); strings.Count(out, "refused") != 1 {
		t.Error("ssh's own words are to be said once")
	}

	// No new version while an engine is missing.
	next := filepath.Join(o.dir, "orch-next")
	if err := os.WriteFile(next, append([]byte(read(t, o.orch)), "\nnext"...), 0o755); err != nil {
		t.Fatal(err)
	}
	arch := runtime.GOARCH
	if err := set.Hosts[2].Cut(); err != nil {
		t.Fatal(err)
	}
	says(t, o.run(1, "upgrade", "-F", o.ssh, "--binary-"+arch, next, inventory), "nothing was upgraded", "try: ssh -v")
	if err := set.Hosts[2].Heal(); err != nil {
		t.Fatal(err)
	}
	// Tasks outlive what follows.
	o.run(0, "run", o.file("play.star", `
stack("naps", services = [service("nap", runtime = "process", command = ["tail", "-f", "/dev/null"], replicas = 3)])
`))
	naps := func() (pids []int) {
		for _, h := range set.Hosts {
			of, err := h.Processes("tail")
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, of...)
		}
		return pids
	}
	before := naps()
	if len(before) != 3 {
		t.Errorf("%d tasks, want 3", len(before))
	}

	// Again: nothing changes.
	says(t, o.run(0, "bootstrap", "-F", o.ssh, inventory), "Nothing to do")
	says(t, o.run(0, "bootstrap", "-F", o.ssh, "--ssh", "system", "-o", "json", inventory), `"text":"nothing to do"`, `"changed":0`)
	// A missing binary is mended.
	if err := set.Hosts[1].Command(t.Context(), "rm", "/usr/local/bin/orch").Run(); err != nil {
		t.Fatal(err)
	}
	says(t, o.run(0, "bootstrap", "-F", o.ssh, inventory), "1 hosts changed")
	says(t, o.run(0, "bootstrap", "-F", o.ssh, inventory), "Nothing to do")

	// Engine by engine.
	says(t, o.run(0, "upgrade", "-F", o.ssh, "--binary-"+arch, next, inventory), "3 hosts changed")
	says(t, o.run(0, "upgrade", "-F", o.ssh, "--binary-"+arch, next, "--dry-run", inventory), "n1 (engine): nothing to do")

	after := naps()
	if !slices.Equal(before, after) {
		t.Errorf("tasks were %v, and are %v", before, after)
	}

	o.run(0, "bootstrap", "-F", o.ssh, "--reset", "--yes", inventory)
	if left := naps(); len(left) > 0 {
		t.Errorf("tasks are left: %v", left)
	}
	for _, h := range set.Hosts {
		left, err := h.Command(t.Context(), "sh", "-c", "ls -A /usr/local/bin | grep orch; ls -A /var/lib/orch; ls -d /var/lib/orch.lock /etc/init.d/orch 2>/dev/null; true").Output()
		if err != nil || len(left) > 0 {
			t.Errorf("left on %s: %s, %v", h.Name, left, err)
		}
		if left, err := h.Processes("orch", "orch-next"); err != nil || len(left) > 0 {
			t.Errorf("still running on %s: %v, %v", h.Name, left, err)
		}
	}
	says(t, o.run(0, "bootstrap", "-F", o.ssh, "--reset", "--yes", inventory), "0 hosts reset")
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

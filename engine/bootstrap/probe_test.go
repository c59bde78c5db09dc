package bootstrap

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// shells are those at hand that are held to POSIX.
func shells(t *testing.T) [][]string {
	t.Helper()
	var all [][]string
	for _, s := range [][]string{{"dash"}, {"busybox", "sh"}, {"bash", "--posix"}} {
		if _, err := exec.LookPath(s[0]); err == nil {
			all = append(all, s)
		}
	}
	if len(all) == 0 {
		t.Skip("no shell here")
	}
	return all
}

func TestProbe(t *testing.T) {
	dir := t.TempDir()
	write(t, 0o755, dir+"/orch", `#!/bin/sh
case "$1 $2" in
"version ") echo orch v9;;
"host status") echo '{"state":"running", "role":"engine",
"cluster_name":"prod", "unheard_of":1}';;
esac
`)
	write(t, 0o644, dir+"/data.lock/owner", "bob since noon")
	for _, s := range shells(t) {
		script := searched + probeScript
		cmd := exec.Command(s[0], append(s[1:], "-c", script, "orch", dir+"/data", dir+"/orch", dir+"/none", dir+"/none", "1")...)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %v", s, err)
		}
		f, err := parseFacts("Welcome!\n"+string(out)+"Bye\n", time.Now())
		if err != nil {
			t.Fatalf("%v: %v\n%s", s, err, out)
		}
		host, _ := os.Hostname()
		if f.OS != "linux" || f.Arch != "amd64" && f.Arch != "arm64" || f.Hostname != host || f.Disk == 0 || f.Memory == 0 || f.Cgroup == "" || f.Init == "" ||
			f.PortTaken || f.Version != "v9" || len(f.Binary) != 64 || f.Unit != "" || f.Data || f.Lock != "bob since noon" ||
			f.Status.GetClusterName() != "prod" || f.Skew > 5*time.Second || f.Skew < -5*time.Second {
			t.Errorf("%v: %+v\n%s", s, f, out)
		}
	}
	if _, err := parseFacts("orch-probe-begin\nos=Linux\n", time.Now()); err == nil {
		t.Error("half an answer is taken")
	}
}

func TestUnitFile(t *testing.T) {
	o := &Options{BinDir: "/usr/bin", Hosts: []*Host{{}}}
	if err := o.defaults(); err != nil {
		t.Fatal(err)
	}
	unit := strings.ReplaceAll(o.unit(), "/usr/bin/orch", "/bin/sh")
	for _, want := range []string{"KillMode=process", "Delegate=yes", "Restart=always", "--dir /var/lib/orch"} {
		if !strings.Contains(unit, want) {
			t.Errorf("%s is missing", want)
		}
	}
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("no systemd-analyze here")
	}
	file := write(t, 0o644, t.TempDir()+"/orch.service", unit)
	if out, err := exec.Command("systemd-analyze", "verify", "--man=no", file).CombinedOutput(); err != nil || strings.Contains(string(out), "orch.service:") {
		t.Errorf("%v: %s", err, out)
	}
}

// TestSupervisor: it starts its child again, and takes it along.
func TestSupervisor(t *testing.T) {
	needs(t)
	for _, s := range shells(t) {
		dir := t.TempDir()
		o := &Options{BinDir: dir, DataDir: dir + "/data", Hosts: []*Host{{}}}
		if err := o.defaults(); err != nil {
			t.Fatal(err)
		}
		// The first run ends at once; the second stays.
		write(t, 0o755, dir+"/orch", "#!/bin/sh\n[ -f "+dir+"/once ] || { : >"+dir+"/once; exit 3; }\necho \"$@\" >"+dir+"/args\nexec sleep 1000\n")
		file := write(t, 0o755, o.supervisor(), o.supervise())
		do := func(what string) error {
			out, err := exec.Command(s[0], append(s[1:], file, what)...).CombinedOutput()
			t.Logf("%v %s: %v %s", s, what, err, out)
			return err
		}
		if do("status") == nil {
			t.Error("it runs before it is started")
		}
		if err := do("start"); err != nil {
			t.Fatal(err)
		}
		tick := time.NewTicker(20 * time.Millisecond)
		for {
			if args, err := os.ReadFile(dir + "/args"); err == nil && string(args) == "agent --dir "+dir+"/data\n" {
				break
			}
			select {
			case <-t.Context().Done():
			case <-tick.C:
				continue
			}
			break
		}
		tick.Stop()
		if err := do("start"); err != nil || do("status") != nil {
			t.Error("a second start fails")
		}
		if err := do("stop"); err != nil || do("status") == nil {
			t.Error("it does not stop")
		}
		if out, err := exec.Command("pgrep", "-f", dir+"/orch").Output(); err == nil {
			t.Errorf("left: %s", out)
		}
		if text, _ := os.ReadFile(dir + "/data/orch.log"); !strings.Contains(string(text), "exit code 3") {
			t.Errorf("log: %s", text)
		}
	}
}

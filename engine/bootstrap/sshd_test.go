package bootstrap

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// server is a real sshd on a port of its own.
type server struct {
	t       *testing.T
	dir     string
	port    int
	hostKey ssh.PublicKey
	bin     string // first in the PATH of its sessions
}

// needs skips, or under CI fails, where something is missing.
func needs(t *testing.T, programs ...string) {
	t.Helper()
	missing := ""
	if testing.Short() {
		t.Skip("-short: needs " + strings.Join(programs, ", "))
	}
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			missing = p + " is not installed"
		}
	}
	if os.Getuid() != 0 {
		missing = "must run as root"
	}
	if missing != "" && os.Getenv("CI") == "true" {
		t.Fatal(missing)
	}
	if missing != "" {
		t.Skip(missing)
	}
}

func startServer(t *testing.T) *server {
	t.Helper()
	t.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin")
	needs(t, "sshd", "ssh", "ssh-keygen")
	s := &server{t: t, dir: t.TempDir()}
	s.bin = s.dir + "/bin"
	for _, d := range []string{s.bin, "/run/sshd"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	keygen(t, s.dir+"/host", "")
	var err error
	if s.hostKey, err = publicKey(s.dir + "/host"); err != nil {
		t.Fatal(err)
	}
	write(t, 0o600, s.dir+"/authorized", "")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.port = l.Addr().(*net.TCPAddr).Port
	l.Close()
	write(t, 0o600, s.dir+"/config", fmt.Sprintf(`
ListenAddress 127.0.0.1:%d
HostKey %s/host
AuthorizedKeysFile %s/authorized
PidFile none
StrictModes no
PermitRootLogin yes
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
MaxStartups 100
SetEnv PATH=%s:/usr/local/bin:/usr/bin:/bin
`, s.port, s.dir, s.dir, s.bin))
	sshd, err := exec.LookPath("sshd")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(sshd, "-D", "-e", "-f", s.dir+"/config")
	log, err := os.Create(s.dir + "/log")
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		log.Close()
		if t.Failed() {
			text, _ := os.ReadFile(s.dir + "/log")
			t.Logf("sshd: %s", text)
		}
	})
	deadline, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for tick := time.NewTicker(10 * time.Millisecond); ; {
		conn, err := net.Dial("tcp", s.address())
		if err == nil {
			conn.Close()
			tick.Stop()
			return s
		}
		select {
		case <-deadline.Done():
			t.Fatal("sshd does not answer")
		case <-tick.C:
		}
	}
}

func (s *server) address() string     { return "127.0.0.1:" + strconv.Itoa(s.port) }
func (s *server) fingerprint() string { return ssh.FingerprintSHA256(s.hostKey) }

// allow lets a key in, and returns its file.
func (s *server) allow(key string) string {
	s.t.Helper()
	text, err := os.ReadFile(key + ".pub")
	if err != nil {
		s.t.Fatal(err)
	}
	f, err := os.OpenFile(s.dir+"/authorized", os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	f.Write(text)
	f.Close()
	return key
}

// host is an inventory's line for the server.
func (s *server) host(more string) *Host {
	s.t.Helper()
	words, _, err := split("root@" + s.address() + " " + more)
	if err != nil {
		s.t.Fatal(err)
	}
	h, errs := parseHost(words)
	if len(errs) > 0 {
		s.t.Fatal(errs)
	}
	return h
}

func keygen(t *testing.T, file, phrase string) string {
	t.Helper()
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", phrase, "-f", file).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v: %s", err, out)
	}
	return file
}

// home gives the test a home of its own, with an ssh configuration that
// keeps known_hosts there, too.
func home(t *testing.T, config string) (dir string, d *Dialer) {
	t.Helper()
	dir = t.TempDir()
	t.Setenv("HOME", dir)
	t.Setenv("SSH_AUTH_SOCK", "")
	if err := os.MkdirAll(dir+"/.ssh", 0o700); err != nil {
		t.Fatal(err)
	}
	file := write(t, 0o600, filepath.Join(dir, "config"), fmt.Sprintf("UserKnownHostsFile %s/known\nGlobalKnownHostsFile none\nIdentityFile %s/none\n%s", dir, dir, config))
	return dir, &Dialer{ConfigFile: file}
}

// answers runs a command and fails the test if it doesn't work.
func answers(t *testing.T, d *Dialer, h *Host) Transport {
	t.Helper()
	tr, user, err := d.Dial(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tr.Close() })
	s, err := become(t.Context(), tr, user, nil)
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.output(t.Context(), `cat; echo "$1 $(id -u)"`, strings.NewReader("from stdin, "), "it's $me")
	if err != nil || out != "from stdin, it's $me 0\n" {
		t.Fatalf("%q, %v", out, err)
	}
	return tr
}

func refuses(t *testing.T, d *Dialer, h *Host, want string) {
	t.Helper()
	tr, _, err := d.Dial(t.Context(), h)
	if err == nil {
		tr.Close()
		t.Fatalf("it is let in; want %s", want)
	}
	if !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "try: ssh -v") {
		t.Errorf("%v\nwant %s", err, want)
	}
}

package bootstrap

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

func TestKeys(t *testing.T) {
	s := startServer(t)
	dir, d := home(t, "")
	pin := " hostkey=" + s.fingerprint()

	refuses(t, d, s.host(pin), "unable to authenticate")
	key := s.allow(keygen(t, dir+"/plain", ""))
	answers(t, d, s.host("key="+key+pin))
	_, named := home(t, "IdentityFile "+key)
	answers(t, named, s.host(pin))

	locked := s.allow(keygen(t, dir+"/locked", "open sesame"))
	refuses(t, d, s.host("key="+locked+pin), "ssh-add")
	asked := 0
	d = &Dialer{ConfigFile: d.ConfigFile, Ask: func(prompt string) (string, error) {
		if asked++; !strings.Contains(prompt, locked) {
			return "", errors.New("asked " + prompt)
		}
		return map[int]string{1: "wrong", 2: "open sesame"}[asked], nil
	}}
	answers(t, d, s.host("key="+locked+pin))
	answers(t, d, s.host("key="+locked+pin))
	if asked != 2 {
		t.Errorf("asked %d times", asked)
	}
}

func TestAgent(t *testing.T) {
	s := startServer(t)
	dir, _ := home(t, "")
	raw, err := os.ReadFile(s.allow(keygen(t, dir+"/id", "")))
	if err != nil {
		t.Fatal(err)
	}
	private, err := ssh.ParseRawPrivateKey(raw)
	if err != nil {
		t.Fatal(err)
	}
	ring := agent.NewKeyring()
	if err := ring.Add(agent.AddedKey{PrivateKey: private}); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", dir+"/agent")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go agent.ServeAgent(ring, conn)
		}
	}()
	_, d := home(t, "IdentityAgent "+dir+"/agent")
	answers(t, d, s.host("hostkey="+s.fingerprint()))
	_, only := home(t, "IdentitiesOnly yes\nIdentityAgent "+dir+"/agent")
	refuses(t, only, s.host("hostkey="+s.fingerprint()), "unable to authenticate")
}

func TestHostKeys(t *testing.T) {
	s := startServer(t)
	dir, d := home(t, "")
	key := "key=" + s.allow(keygen(t, dir+"/id", ""))
	for _, d := range []*Dialer{d, {ConfigFile: d.ConfigFile, System: true}} {
		os.Remove(dir + "/known")
		unknown, changed := "is not known (SHA256:", "has CHANGED"
		if d.System {
			unknown, changed = "Host key verification failed", "Host key verification failed"
		}
		refuses(t, d, s.host(key), unknown)
		refuses(t, d, s.host(key+" hostkey=SHA256:"+strings.Repeat("a", 43)), "pins another")
		if tr := answers(t, d, s.host(key+" hostkey="+s.fingerprint())); tr.HostKey() != s.fingerprint() {
			t.Errorf("fingerprint %q", tr.HostKey())
		}

		write(t, 0o600, dir+"/known", "other "+string(ssh.MarshalAuthorizedKey(s.hostKey))[:40]) // no newline at its end
		os.Remove(dir + "/known")
		accept := &Dialer{ConfigFile: d.ConfigFile, AcceptNew: true, System: d.System}
		answers(t, accept, s.host(key))
		answers(t, d, s.host(key)) // from now on it is known
		known, _ := os.ReadFile(dir + "/known")
		if strings.Count(string(known), "\n") != 1 {
			t.Errorf("known_hosts: %s", known)
		}

		other, err := publicKey(keygen(t, fmt.Sprintf("%s/other-%v", dir, d.System), ""))
		if err != nil {
			t.Fatal(err)
		}
		write(t, 0o600, dir+"/known", fmt.Sprintf("[127.0.0.1]:%d %s", s.port, ssh.MarshalAuthorizedKey(other)))
		refuses(t, d, s.host(key), changed)
		refuses(t, accept, s.host(key), changed)
	}
}

func TestJumps(t *testing.T) {
	bastion, s := startServer(t), startServer(t)
	dir, d := home(t, "")
	d.AcceptNew = true
	key := bastion.allow(s.allow(keygen(t, dir+"/id", "")))
	_, d = home(t, "IdentityFile "+key+"\nHost far\n HostName 127.0.0.1\n Port "+fmt.Sprint(s.port)+"\n User root\n ProxyJump root@"+bastion.address())
	d.AcceptNew = true
	answers(t, d, s.host("jump=root@"+bastion.address()))
	answers(t, d, &Host{Address: "far"})
	answers(t, &Dialer{ConfigFile: d.ConfigFile, System: true}, &Host{Address: "far"})
	refuses(t, d, s.host("jump=root@127.0.0.1:1"), `the way over "root@127.0.0.1:1"`)

	tr := answers(t, d, &Host{Address: "far"})
	conn, err := tr.Dial(t.Context(), s.address())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	hello := make([]byte, 4)
	if conn.Read(hello); string(hello) != "SSH-" {
		t.Errorf("through the tunnel: %q", hello)
	}
}

// TestWhatGoCannotDo: the system's ssh takes over by itself.
func TestWhatGoCannotDo(t *testing.T) {
	s := startServer(t)
	dir, _ := home(t, "")
	key := s.allow(keygen(t, dir+"/id", ""))
	proxy := fmt.Sprintf("IdentityFile %s\nHost far\n User root\n ProxyCommand bash -c 'exec 3<>/dev/tcp/127.0.0.1/%d; cat <&3 & exec cat >&3'", key, s.port)
	match := fmt.Sprintf("IdentityFile %s\nMatch originalhost far exec true\n HostName 127.0.0.1\n User root\n Port %d", key, s.port)
	for _, config := range []string{proxy, match} {
		_, d := home(t, config)
		d.AcceptNew = true
		tr := answers(t, d, &Host{Address: "far"})
		if _, is := tr.(*system); !is {
			t.Errorf("%T", tr)
		}
		var out, errs bytes.Buffer
		exit, err := tr.Run(t.Context(), "echo out; echo err >&2; exit 7", nil, &out, &errs)
		if exit != 7 || err != nil || out.String() != "out\n" || errs.String() != "err\n" {
			t.Errorf("%d %v %q %q", exit, err, &out, &errs)
		}
	}
}

func TestUnreachable(t *testing.T) {
	needs(t)
	_, d := home(t, "")
	refuses(t, d, &Host{Address: "127.0.0.1", Port: 1, User: "bob", Key: "~/my key"}, "ssh -v -F")
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	_, d = home(t, "ConnectTimeout 1")
	refuses(t, d, &Host{Address: "127.0.0.1", Port: silent.Addr().(*net.TCPAddr).Port}, "is that an SSH server?")
}

// TestSudo plays a user that is not root by programs before the real ones.
func TestSudo(t *testing.T) {
	s := startServer(t)
	dir, d := home(t, "")
	key := "key=" + s.allow(keygen(t, dir+"/id", ""))
	write(t, 0o755, s.bin+"/id", "#!/bin/sh\n[ -n \"$FAKE_ROOT\" ] && echo 0 || echo 1000\n")
	tr, _, err := d.Dial(t.Context(), s.host(key+" hostkey="+s.fingerprint()))
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	work := func(ask func() (string, error)) error {
		sh, err := become(t.Context(), tr, "bob", ask)
		if err != nil {
			return err
		}
		out, err := sh.output(t.Context(), "cat; id -u", strings.NewReader("data\n"))
		if err == nil && out != "data\n0\n" {
			err = fmt.Errorf("got %q", out)
		}
		return err
	}
	sudo, lookErr := exec.LookPath("sudo")
	if lookErr != nil {
		if err := work(nil); err == nil || !strings.Contains(err.Error(), "there is no sudo") {
			t.Errorf("without sudo: %v", err)
		}
	} else {
		t.Logf("%s is here: cannot try what is said without it", sudo)
	}

	write(t, 0o755, s.bin+"/sudo", "#!/bin/sh\nshift\nFAKE_ROOT=1 exec \"$@\"\n")
	if err := work(nil); err != nil {
		t.Errorf("without a password: %v", err)
	}

	// With one: read a byte at a time, as sudo does; what was typed stays off
	// the command line.
	write(t, 0o755, s.bin+"/sudo", `#!/bin/sh
[ "$1" = -n ] && { echo "sudo: a password is required" >&2; exit 1; }
[ "$1 $2 $3" = "-k -S -p" ] || { echo "sudo: how? $*" >&2; exit 1; }
shift 4
case "$*" in *sesame*) echo "sudo: that is seen by all" >&2; exit 1;; esac
IFS= read -r password
[ "$password" = "open sesame" ] || { echo "sudo: wrong" >&2; exit 1; }
FAKE_ROOT=1 exec "$@"
`)
	say := func(password string) func() (string, error) { return func() (string, error) { return password, nil } }
	if err := work(say("open sesame")); err != nil {
		t.Errorf("with the password: %v", err)
	}
	if err := work(say("other")); err == nil || !strings.Contains(err.Error(), "is the password right") {
		t.Errorf("with another: %v", err)
	}
	if err := work(nil); err == nil || !strings.Contains(err.Error(), "--ask-sudo-password") {
		t.Errorf("nobody to ask: %v", err)
	}
}

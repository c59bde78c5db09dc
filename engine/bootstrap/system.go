package bootstrap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/crypto/ssh"
)

// system is the Transport of the system's ssh: one master connection, and a
// session of it for each command.
type system struct {
	dir    string // holds the master's socket
	flags  []string
	alias  string
	master *exec.Cmd
	ended  chan struct{} // the master has
	said   *bytes.Buffer // by the master; to be read once it ended
	print  string
}

// system starts a master connection and waits until it stands.
func (d *Dialer) system(ctx context.Context, h *Host, t *target) (*system, error) {
	if _, err := exec.LookPath("ssh"); err != nil {
		return nil, fmt.Errorf("the system has no ssh: %w", err)
	}
	dir, err := os.MkdirTemp("", "orch-ssh")
	if err != nil {
		return nil, err
	}
	s := &system{dir: dir, alias: t.alias, ended: make(chan struct{}), said: &bytes.Buffer{}, flags: d.flags(h)}
	strict := "StrictHostKeyChecking=yes"
	if d.AcceptNew || t.acceptNew {
		strict = "StrictHostKeyChecking=accept-new"
	}
	pin := filepath.Join(dir, "pinned")
	if h.HostKey != "" { // whatever it shows is kept here, and compared below, before a command is sent
		strict = "StrictHostKeyChecking=accept-new"
		s.flags = append(s.flags, "-o", "UserKnownHostsFile="+pin, "-o", "GlobalKnownHostsFile=none", "-o", "HashKnownHosts=no", "-o", "CheckHostIP=no")
	}
	s.flags = append(s.flags, "-o", strict, "-o", "ControlPath="+filepath.Join(dir, "s"), "-o", fmt.Sprintf("ConnectTimeout=%d", int(t.timeout.Seconds())))
	batch := "BatchMode=yes"
	if d.Ask != nil {
		batch = "BatchMode=no"
		d.screen.Lock()
		defer d.screen.Unlock()
	}
	s.master = exec.Command("ssh", append(s.flags, "-o", batch, "-o", "ControlMaster=yes", "-o", "ControlPersist=no", "-N", "-T", "--", s.alias)...)
	s.master.Stderr, s.master.WaitDelay = s.said, time.Second // a ProxyCommand may outlive it
	if err := s.master.Start(); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	go func() {
		defer close(s.ended)
		s.master.Wait()
	}()
	if err := s.stands(ctx); err != nil {
		s.Close()
		return nil, err
	}
	if h.HostKey != "" {
		if err := s.pinned(pin, h.HostKey); err != nil {
			s.Close()
			return nil, err
		}
	}
	return s, nil
}

// stands waits for the master's socket.
func (s *system) stands(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Stat(filepath.Join(s.dir, "s")); err == nil {
			return nil
		}
		select {
		case <-s.ended:
			return fmt.Errorf("ssh ended%s", lastWords(s.said.String()))
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// pinned compares the key that the master was shown with the inventory's.
func (s *system) pinned(file, want string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("cannot compare the host key with hostkey=: %w", err)
	}
	for len(text) > 0 {
		_, _, key, _, rest, err := ssh.ParseKnownHosts(text)
		if err != nil {
			break
		}
		if s.print = ssh.FingerprintSHA256(key); s.print == want {
			return nil
		}
		text = rest
	}
	return &keyError{fmt.Sprintf("%s has the host key %s, and hostkey=%s pins another: somebody may stand in between; if the host was made anew, correct the inventory", s.alias, s.print, want)}
}

func (s *system) command(ctx context.Context, more ...string) *exec.Cmd {
	args := append(append([]string{}, s.flags...), "-o", "BatchMode=yes", "-o", "ControlMaster=no", "-T")
	return exec.CommandContext(ctx, "ssh", append(args, more...)...)
}

// broken is ssh's own exit code.
const broken = 255

func (s *system) Run(ctx context.Context, command string, stdin io.Reader, stdout, stderr io.Writer) (int, error) {
	var said bytes.Buffer
	cmd := s.command(ctx, "--", s.alias, command)
	cmd.Stdout, cmd.Stderr = stdout, io.MultiWriter(stderr, &said)
	cmd.WaitDelay = time.Second
	in, err := cmd.StdinPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	go func() {
		if stdin != nil {
			io.Copy(in, stdin)
		}
		in.Close()
	}()
	err = cmd.Wait()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return 0, ctx.Err()
	case err == nil:
		return 0, nil
	case errors.As(err, &exit) && exit.ExitCode() != broken && exit.ExitCode() >= 0:
		return exit.ExitCode(), nil
	}
	return 0, fmt.Errorf("the SSH connection broke%s", lastWords(said.String()))
}

// Dial is ssh -W.
func (s *system) Dial(ctx context.Context, address string) (net.Conn, error) {
	here, there := net.Pipe()
	cmd := s.command(context.Background(), "-W", address, "--", s.alias)
	cmd.Stdin, cmd.Stdout = there, there
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() { // ends when either side closes
		cmd.Wait()
		there.Close()
	}()
	return here, nil
}

func (s *system) HostKey() string { return s.print }

func (s *system) Close() error {
	s.master.Process.Signal(os.Interrupt)
	select {
	case <-s.ended:
	case <-time.After(2 * time.Second):
		s.master.Process.Kill()
		<-s.ended
	}
	return os.RemoveAll(s.dir)
}

package hosts

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// start runs a daemon on the host for as long as the host is there. What it
// prints is in a file of its name in the host's Dir.
func (h *Host) start(name string, args ...string) error {
	log, err := os.Create(filepath.Join(h.Dir, filepath.Base(name)+".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := h.Command(context.Background(), name, args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() { _ = cmd.Wait() }() // ends with the host
	return nil
}

// answers tries until it works or ctx or a minute is over. The log of that
// daemon's name is then part of the error.
func (h *Host) answers(ctx context.Context, name string, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(30 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			log, _ := os.ReadFile(filepath.Join(h.Dir, name+".log"))
			return fmt.Errorf("%s does not answer: %w: %s", name, err, log[max(0, len(log)-2000):])
		case <-tick.C:
		}
	}
}

func (h *Host) startDocker(ctx context.Context) error {
	h.Docker = h.Path("/run/docker.sock")
	if err := h.start("dockerd", "--cgroup-parent", "/"+h.set.name, "--log-level", "warn"); err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", h.Docker)
	}}}
	return h.answers(ctx, "dockerd", func(ctx context.Context) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker/_ping", nil)
		if err != nil {
			return err
		}
		answer, err := client.Do(r)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			return errors.New(answer.Status)
		}
		return nil
	})
}

// RestartDocker ends the host's Docker in order, with its containers, and
// starts it again.
func (h *Host) RestartDocker(ctx context.Context) error {
	if err := h.Signal(syscall.SIGTERM, "dockerd"); err != nil {
		return err
	}
	err := h.answers(ctx, "dockerd", func(context.Context) error {
		left, err := h.Processes("dockerd", "containerd")
		if err == nil && len(left) > 0 {
			err = errors.New("it hasn't ended yet")
		}
		return err
	})
	if err != nil {
		return err
	}
	return h.startDocker(ctx)
}

// KeyFile is the private key that may log in as root on each host. It has no
// passphrase.
func (s *Set) KeyFile() string { return filepath.Join(s.Dir, "ssh", "id") }

// KnownHosts is a known_hosts file with each host's key, by its address.
func (s *Set) KnownHosts() string { return filepath.Join(s.Dir, "ssh", "known_hosts") }

// makeKeys makes the client's key and n hosts' own.
func (s *Set) makeKeys(ctx context.Context, n int) error {
	dir := filepath.Join(s.Dir, "ssh")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var known strings.Builder
	for i := range n + 1 {
		name := "id"
		if i > 0 {
			name = fmt.Sprintf("n%d", i)
		}
		path := filepath.Join(dir, name)
		if err := run(exec.CommandContext(ctx, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", path)); err != nil {
			return err
		}
		if i > 0 {
			public, err := os.ReadFile(path + ".pub")
			if err != nil {
				return err
			}
			fmt.Fprintf(&known, "%s %s", s.fabric.addr(i-1), public)
		}
	}
	return os.WriteFile(s.KnownHosts(), []byte(known.String()), 0o644)
}

func (h *Host) startSSH(ctx context.Context) error {
	// Locked or not, root may log in here: all of it is the host's own /etc.
	const config = `
		mkdir -m 700 /root/.ssh; install -m 600 "$1/id.pub" /root/.ssh/authorized_keys
		rm -f /etc/ssh/ssh_host_*; install -m 600 "$1/$2" /etc/ssh/ssh_host_ed25519_key
		sed -i 's/^root:[^:]*:/root:*:/' /etc/shadow
		printf '%s\n' 'HostKey /etc/ssh/ssh_host_ed25519_key' 'PasswordAuthentication no' 'PermitRootLogin prohibit-password' \
			'MaxStartups 100' 'MaxSessions 100' 'Subsystem sftp internal-sftp' "SetEnv PATH=$PATH" >/etc/ssh/sshd_config`
	if err := run(h.Command(ctx, "sh", "-ec", config, "sh", filepath.Join(h.set.Dir, "ssh"), h.Name)); err != nil {
		return err
	}
	if err := h.start("/usr/sbin/sshd", "-D", "-e"); err != nil {
		return err
	}
	return h.answers(ctx, "sshd", func(ctx context.Context) error {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(h.Addr, fmt.Sprint(h.SSHPort)))
		if err != nil {
			return err
		}
		return c.Close()
	})
}

package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
)

// Dialer reaches hosts by SSH, as the user's configuration of ssh says. Its
// zero value works. It may be used for several hosts at a time.
type Dialer struct {
	ConfigFile string // of ssh; empty: ~/.ssh/config and /etc/ssh/ssh_config
	System     bool   // only ever use the system's ssh
	AcceptNew  bool   // trust the key of a host that isn't known, and remember it
	// Ask asks on the terminal for a passphrase or a password, not shown; nil:
	// nobody is there.
	Ask func(prompt string) (string, error)

	once   sync.Once
	config *configuration
	err    error
	keys   *hostKeys
	creds  *credentials
	screen sync.Mutex // the system's ssh asks on the terminal by itself
}

func (d *Dialer) init() error {
	d.once.Do(func() {
		d.config, d.err = readConfiguration(d.ConfigFile)
		d.keys = &hostKeys{acceptNew: d.AcceptNew}
		d.creds = &credentials{ask: d.Ask}
	})
	return d.err
}

// Dial reaches a host: by Go's client, or, where the configuration asks for
// what that can't do or it isn't let in, by the system's ssh. The error says
// what to try.
func (d *Dialer) Dial(ctx context.Context, h *Host) (Transport, string, error) {
	if err := d.init(); err != nil {
		return nil, "", err
	}
	t := d.config.resolve(h)
	if d.System || t.system != "" {
		s, err := d.system(ctx, h, t)
		if err != nil {
			if t.system != "" {
				err = fmt.Errorf("%w (through the system's ssh, because %s)", err, t.system)
			}
			return nil, "", d.advise(h, t, err)
		}
		return s, t.user, nil
	}
	c, err := d.dialGo(ctx, t)
	if err == nil {
		return c, t.user, nil
	}
	var in *refused
	if errors.As(err, &in) {
		if _, missing := exec.LookPath("ssh"); missing == nil {
			if s, second := d.system(ctx, h, t); second == nil {
				return s, t.user, nil
			}
		}
	}
	return nil, "", d.advise(h, t, err)
}

// refused is that the host was reached, and its SSH server didn't let us in.
type refused struct{ err error }

func (r *refused) Error() string { return r.err.Error() }
func (r *refused) Unwrap() error { return r.err }

// advise adds the line to try.
func (d *Dialer) advise(h *Host, t *target, err error) error {
	return fmt.Errorf("cannot reach %s by SSH: %w\n  try: %s", h, err, strings.Join(append([]string{"ssh -v"}, quoted(d.flags(h))...), " ")+" "+quote(t.alias))
}

// flags are ssh's options that say what the inventory's line says.
func (d *Dialer) flags(h *Host) []string {
	var flags []string
	add := func(flag, value string) {
		if value != "" {
			flags = append(flags, flag, value)
		}
	}
	add("-F", d.ConfigFile)
	add("-l", h.User)
	if h.Port != 0 {
		add("-p", fmt.Sprint(h.Port))
	}
	if h.Key != "" {
		add("-i", expand(h.Key))
		add("-o", "IdentitiesOnly=yes")
	}
	add("-J", h.Jump)
	return flags
}

func quoted(words []string) []string {
	var all []string
	for _, w := range words {
		all = append(all, quote(w))
	}
	return all
}

// dialGo reaches a target through its jumps.
func (d *Dialer) dialGo(ctx context.Context, t *target) (*client, error) {
	c := &client{}
	for _, text := range t.jumps {
		hop, err := d.config.hop(text)
		if err == nil && hop.system != "" {
			err = &refused{errors.New(hop.system)} // the system's ssh may go that way
		}
		if err == nil {
			err = d.connect(ctx, c, hop)
		}
		if err != nil {
			c.Close()
			return nil, fmt.Errorf("the way over %q: %w", text, err)
		}
	}
	if err := d.connect(ctx, c, t); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// connect adds one hop to the chain.
func (d *Dialer) connect(ctx context.Context, c *client, t *target) error {
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	var conn net.Conn
	var err error
	if last := c.last(); last != nil {
		conn, err = last.DialContext(ctx, "tcp", t.address())
	} else {
		conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", t.address())
	}
	if err != nil {
		return err
	}
	v, err := d.keys.verifier(t)
	if err != nil {
		conn.Close()
		return err
	}
	a := d.creds.attempt(t)
	defer a.close()
	// Only the silence of the server is bounded: a human may be typing.
	greeted := make(chan struct{})
	var once sync.Once
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-greeted:
		default:
			conn.Close()
		}
	})
	defer stop()
	sshConn, chans, requests, err := ssh.NewClientConn(conn, t.address(), &ssh.ClientConfig{
		User: t.user, Auth: a.methods, HostKeyAlgorithms: v.algorithms(),
		HostKeyCallback: func(name string, remote net.Addr, key ssh.PublicKey) error {
			once.Do(func() { close(greeted) })
			return v.check(name, remote, key)
		},
	})
	if err != nil {
		conn.Close()
		var key *keyError
		switch {
		case errors.As(err, &key):
			return key
		case ctx.Err() != nil && !isClosed(greeted):
			return fmt.Errorf("%s accepts a connection and says nothing for %s: is that an SSH server?", t.address(), t.timeout)
		}
		return &refused{fmt.Errorf("%w%s", err, listed(a.notes))}
	}
	c.add(ssh.NewClient(sshConn, chans, requests), t.alive, ssh.FingerprintSHA256(v.seen))
	return nil
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func listed(notes []error) string {
	text := ""
	for _, n := range notes {
		text += "; " + n.Error()
	}
	return text
}

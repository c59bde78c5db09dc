package bootstrap

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
)

// Transport runs commands on a host, several at a time if need be.
type Transport interface {
	// Run runs a command in the user's login shell. An exit code is no error;
	// an error is that it could not be run, or that the connection broke.
	Run(ctx context.Context, command string, stdin io.Reader, stdout, stderr io.Writer) (exit int, err error)
	// Dial connects to an address as seen from the host.
	Dial(ctx context.Context, address string) (net.Conn, error)
	// HostKey is the fingerprint of the host's key, SHA256:…; "" if unknown.
	HostKey() string
	Close() error
}

// shell runs scripts on a host as root.
type shell struct {
	Transport
	sudo     string // "": root by itself; else how sudo is called
	password string // passed over stdin where sudo asks for it
	user     string
}

// mark parts what sudo may read from what is meant for the script: whether
// sudo asks depends on what it remembers.
const mark = "--orch-begin--"

// searched is where programs are, whatever a login's profile says.
const searched = "PATH=$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin; LC_ALL=C; export PATH LC_ALL\n"

// output runs a POSIX script as root and returns what it printed; an exit code
// other than 0 is an error with its last words. Arguments are $1 and on.
func (s *shell) output(ctx context.Context, script string, stdin io.Reader, args ...string) (string, error) {
	var out bytes.Buffer
	exit, said, err := s.run(ctx, script, stdin, &out, args...)
	switch {
	case err != nil:
		return "", err
	case exit != 0:
		if strings.TrimSpace(said) == "" {
			said = out.String()
		}
		return out.String(), &exitCode{exit, strings.TrimPrefix(lastWords(said), ": ")}
	}
	return out.String(), nil
}

// exitCode is that a command ran and failed.
type exitCode struct {
	code int
	said string
}

func (e *exitCode) Error() string {
	if e.said != "" {
		return e.said
	}
	return fmt.Sprintf("it ended with exit code %d and said nothing", e.code)
}

// run is output for those who look at the exit code themselves.
func (s *shell) run(ctx context.Context, script string, stdin io.Reader, stdout io.Writer, args ...string) (exit int, said string, err error) {
	var errs bytes.Buffer
	script = searched + script
	if s.password != "" {
		script = fmt.Sprintf("while IFS= read -r line && [ \"$line\" != %s ]; do :; done\n", mark) + script
		first := strings.NewReader(s.password + "\n" + mark + "\n")
		if stdin == nil {
			stdin = first
		} else {
			stdin = io.MultiReader(first, stdin)
		}
	}
	command := "sh -c " + quote(script) + " orch"
	for _, a := range args {
		command += " " + quote(a)
	}
	if s.sudo != "" {
		command = s.sudo + " " + command
	}
	exit, err = s.Run(ctx, command, stdin, stdout, &errs)
	return exit, errs.String(), err
}

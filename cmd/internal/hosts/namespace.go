package hosts

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
)

// namespace is a process that holds namespaces open. It ends when its standard
// input does: with the process that made it, at the latest.
type namespace struct {
	pid   int
	cmd   *exec.Cmd
	stdin io.Closer
}

// hold starts a shell in new namespaces, which does setup, and then waits and
// reaps. It is the first process of a new PID namespace if that is asked for.
func hold(flags uintptr, setup string, env ...string) (*namespace, error) {
	// `cat` has its input as 3, since a shell gives its background jobs none;
	// `wait` for it reaps orphans as well.
	cmd := exec.Command("/bin/sh", "-c", "set -e\n"+setup+"\necho ready; exec 3<&0\ncat <&3 >/dev/null & wait $!")
	cmd.Env = append(env, "PATH="+path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Setpgid: true}
	var failed bytes.Buffer
	cmd.Stderr = &failed
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("cannot make namespaces: %w", err)
	}
	n := &namespace{pid: cmd.Process.Pid, cmd: cmd, stdin: in}
	if line, _ := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		return nil, errors.Join(n.close(), fmt.Errorf("cannot set up namespaces: %s", strings.TrimSpace(failed.String())))
	}
	return n, nil
}

// close ends the process; all others of its PID namespace are gone when it
// returns.
func (n *namespace) close() error {
	_ = n.stdin.Close()
	_ = n.cmd.Process.Kill()
	var exit *exec.ExitError
	if err := n.cmd.Wait(); err != nil && !errors.As(err, &exit) {
		return err
	}
	return nil
}

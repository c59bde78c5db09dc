// Package detached starts this program once more as a process that outlives the
// one which starts it: for what must go on while an agent restarts. Such a
// process is init's child in a session of its own. Its first argument names what
// it is to be.
package detached

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"
)

const (
	// stay, as the last argument, is that of the process that stays; the one
	// before it only starts it.
	stay     = "stay"
	reportFD = 3 // where the process says how its start went
	up       = "up"
)

// Is says whether a program called with args (os.Args) is to be the process of
// this name.
func Is(args []string, name string) bool { return len(args) > 2 && args[1] == name }

// Start starts the process, with arguments of its own (one at least) and what is
// added to its environment, and returns once it has called up.
func Start(ctx context.Context, name string, args []string, env ...string) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd := exec.Command("/proc/self/exe", append([]string{name}, args...)...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), env...)
	cmd.ExtraFiles = []*os.File{w}
	cmd.Dir = "/"
	err = cmd.Start()
	w.Close()
	if err != nil {
		return fmt.Errorf("cannot start %s: %w", name, err)
	}
	defer context.AfterFunc(ctx, func() { _ = r.SetReadDeadline(time.Unix(1, 0)) })()
	said, err := io.ReadAll(r)
	_ = cmd.Wait() // it has only started the one that stays
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return err
	case string(said) == up:
		return nil
	case len(said) == 0:
		return fmt.Errorf("%s died; does the program's main call its Main first?", name)
	}
	return errors.New(string(said))
}

// Main is the whole life of the process; it does not return. run gets its
// arguments, and calls up once it is at work; what it fails with before that is
// what Start returns.
func Main(run func(args []string, up func()) error) {
	report := os.NewFile(reportFD, "report")
	if os.Args[len(os.Args)-1] != stay {
		if err := again(report); err != nil {
			fmt.Fprint(report, err)
			os.Exit(1)
		}
		os.Exit(0) // what stays is init's
	}
	syscall.CloseOnExec(reportFD)
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGPIPE)
	err := run(os.Args[2:len(os.Args)-1], func() {
		fmt.Fprint(report, up)
		report.Close()
	})
	if err != nil {
		fmt.Fprint(report, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func again(report *os.File) error {
	cmd := exec.Command("/proc/self/exe", append(os.Args[1:], stay)...)
	cmd.Args[0] = os.Args[0]
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{report}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd.Start()
}

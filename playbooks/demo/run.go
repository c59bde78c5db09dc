package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Run is one `orch run` of the playbook, with its data folder to itself.
type Run struct {
	Orch     string // the program
	Playbook string
	Params   Params
	Home     string // ORCH_HOME: the run's data; never the user's own
	Path     string // put before PATH, for the process runtime
	Port     int    // of the dashboard; 0: 8888
	Say      func(format string, args ...any)
	// Inspect, where set, is called by Check while everything runs.
	Inspect func(context.Context) error

	cmd    *exec.Cmd
	exited chan error
}

// stopLimit is how long orch may take to stop its tasks after SIGINT.
const stopLimit = time.Minute

// URL is where the dashboard is.
func (r *Run) URL() string { return fmt.Sprintf("http://127.0.0.1:%d", r.port()) }

func (r *Run) port() int {
	if r.Port == 0 {
		return 8888
	}
	return r.Port
}

// Show runs until ctx ends or orch does.
func (r *Run) Show(ctx context.Context) error {
	if err := r.start(os.Stdout, os.Stderr); err != nil {
		return err
	}
	waiting, cancel := context.WithCancel(ctx)
	shown := make(chan struct{})
	go func() {
		defer close(shown)
		if points, err := r.waitPoints(waiting); err == nil {
			r.Say("the dashboard has %s: look at %s — Ctrl-C ends the demo", points, r.URL())
		}
	}()
	defer func() { cancel(); <-shown }()
	select {
	case err := <-r.exited:
		if err == nil {
			return nil
		}
		return fmt.Errorf("orch ended: %w", err)
	case <-ctx.Done():
		r.Say("stopping …")
		return r.stop()
	}
}

// Check runs until the dashboard shows points, for at most limit, then ends
// orch with SIGINT and looks that it exits with 0 and that nothing is left.
// An error has the end of orch's output.
func (r *Run) Check(ctx context.Context, limit time.Duration, docker *Docker) (err error) {
	if err := os.MkdirAll(r.Home, 0o755); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(filepath.Dir(r.Home), filepath.Base(r.Home)+".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	defer func() {
		if err != nil {
			out, _ := os.ReadFile(log.Name()) // what there is of it
			err = fmt.Errorf("%w\n--- the end of orch's output (%s) ---\n%s", err, log.Name(), tail(string(out), 60))
		}
	}()
	before, err := r.leftovers(ctx, docker)
	if err != nil {
		return err
	}
	if err := r.start(log, log); err != nil {
		return err
	}
	waiting, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no cpu points within %s", limit))
	defer cancel()
	type outcome struct {
		points string
		err    error
	}
	seen := make(chan outcome, 1)
	go func() {
		points, err := r.waitPoints(waiting)
		seen <- outcome{points, err}
	}()
	select {
	case err := <-r.exited:
		cancel()
		<-seen
		return fmt.Errorf("orch ended before the dashboard had points: %v", orExit0(err))
	case o := <-seen:
		if o.err != nil {
			return errors.Join(o.err, r.stop())
		}
		r.Say("the dashboard at %s has %s", r.URL(), o.points)
	}
	if r.Inspect != nil {
		if err := r.Inspect(ctx); err != nil {
			return errors.Join(err, r.stop())
		}
	}
	r.Say("sending SIGINT to orch …")
	if err := r.stop(); err != nil {
		return err
	}
	// The demo's own ctx may have ended by now; what is left still counts.
	after, err := r.leftovers(context.WithoutCancel(ctx), docker)
	if err != nil {
		return err
	}
	had := map[string]bool{}
	for _, name := range before {
		had[name] = true
	}
	var left []string
	for _, name := range after {
		if !had[name] {
			left = append(left, name)
		}
	}
	if len(left) > 0 {
		return fmt.Errorf("orch left behind: %s", strings.Join(left, ", "))
	}
	r.Say("orch exited with 0 and left nothing behind: the demo works")
	return nil
}

// start begins orch in a process group of its own: a terminal's Ctrl-C then
// comes once, from here, not twice.
func (r *Run) start(stdout, stderr io.Writer) error {
	// Another server there would be taken for the dashboard.
	l, err := net.Listen("tcp", fmt.Sprintf(":%d", r.port()))
	if err != nil {
		return fmt.Errorf("port %d is needed for the dashboard: %w", r.port(), err)
	}
	l.Close()
	if err := os.MkdirAll(r.Home, 0o755); err != nil {
		return err
	}
	orch, err := filepath.Abs(r.Orch)
	if err != nil {
		return err
	}
	params := Params{"dashboard_port": strconv.Itoa(r.port())}
	for k, v := range r.Params {
		params[k] = v
	}
	args := append([]string{"run", r.Playbook}, params.Args()...)
	r.Say("%s %s", r.Orch, strings.Join(args, " "))
	r.cmd = exec.Command(orch, args...)
	r.cmd.Env = append(os.Environ(), "ORCH_HOME="+r.Home, "ORCH_CONTEXT=local",
		"PATH="+r.Path+string(os.PathListSeparator)+os.Getenv("PATH"))
	r.cmd.Stdout, r.cmd.Stderr = stdout, stderr
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := r.cmd.Start(); err != nil {
		return fmt.Errorf("cannot start orch: %w", err)
	}
	r.exited = make(chan error, 1)
	go func() { r.exited <- r.cmd.Wait() }()
	return nil
}

// stop ends orch with SIGINT; one that goes on is killed, which is an error.
func (r *Run) stop() error {
	if err := r.cmd.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case err := <-r.exited:
		if err != nil {
			return fmt.Errorf("orch did not end well after SIGINT: %w", err)
		}
		return nil
	case <-time.After(stopLimit):
		// Its whole group: a child that lives on would hold the output open.
		syscall.Kill(-r.cmd.Process.Pid, syscall.SIGKILL)
		<-r.exited
		return fmt.Errorf("orch went on for %s after SIGINT and was killed", stopLimit)
	}
}

// waitPoints waits until the dashboard shows cpu points, and counts them.
func (r *Run) waitPoints(ctx context.Context) (string, error) {
	for {
		points, err := DashboardPoints(ctx, r.URL())
		if err == nil {
			return points, nil
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("%w; last: %w", context.Cause(ctx), err)
		case <-time.After(300 * time.Millisecond):
		}
	}
}

// leftovers names the containers and processes of the demo that are there.
func (r *Run) leftovers(ctx context.Context, docker *Docker) ([]string, error) {
	names := programsRunning(filepath.Join(filepath.Dir(r.Path), "programs"))
	if docker == nil {
		return names, nil
	}
	images := map[string]bool{}
	for k, v := range r.Params {
		if strings.HasSuffix(k, "_image") {
			images[v] = true
		}
	}
	containers, err := docker.Containers(ctx, images)
	return append(names, containers...), err
}

// programsRunning names the processes whose program is below dir. It sees
// what /proc lets the user see; without /proc it sees nothing.
func programsRunning(dir string) []string {
	exes, _ := filepath.Glob("/proc/[0-9]*/exe")
	var names []string
	for _, exe := range exes {
		path, err := os.Readlink(exe)
		if err == nil && strings.HasPrefix(path, dir+string(filepath.Separator)) {
			names = append(names, fmt.Sprintf("process %s (%s)", filepath.Base(filepath.Dir(exe)), filepath.Base(path)))
		}
	}
	return names
}

func orExit0(err error) string {
	if err == nil {
		return "exit status 0"
	}
	return err.Error()
}

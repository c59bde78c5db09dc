package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"connectrpc.com/connect"

	"orch/cmd/internal/daemon"
	"orch/engine"
	"orch/engine/api"
	"orch/playbooks"
)

// local is this machine's part of a cluster in this process; alone, a cluster
// of one.
type local struct {
	*daemon.Daemon
	stop   context.CancelFunc
	work   sync.WaitGroup
	failed chan error
	client clusterClient
	log    io.Closer
}

// openDaemon makes a daemon of this program.
func openDaemon(dir string, logTo io.Writer, noAgent bool) (*daemon.Daemon, error) {
	return daemon.Open(daemon.Config{Dir: dir, NoAgent: noAgent, Version: version, Evaluator: playbooks.Sandbox{}, Strategy: &playbooks.Worker{}, Logger: newLogger(logTo)})
}

func newLogger(to io.Writer) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(os.Getenv("ORCH_LOG"))) // empty or wrong: info
	return slog.New(slog.NewTextHandler(to, &slog.HandlerOptions{Level: level}))
}

// localOptions say how this machine's part of a cluster runs in this process.
type localOptions struct {
	listen string    // address of the TLS port; "": as before, at first 127.0.0.1 and a free port
	log    io.Writer // nil: engine.log in the data folder
	// alone is for those who stop every task in the end: they must never start
	// this host's part of a cluster of several.
	alone bool
}

// startLocal runs this machine's engine and agent in this process until
// Close. A folder that is of no cluster yet becomes that of a cluster of one.
func startLocal(ctx context.Context, o localOptions) (l *local, err error) {
	dir, err := home()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the data folder: %w", err)
	}
	l = &local{failed: make(chan error, 1)}
	if o.log == nil {
		f, err := os.OpenFile(filepath.Join(dir, "engine.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			return nil, fmt.Errorf("cannot write the engine's log: %w", err)
		}
		l.log, o.log = f, f
	}
	opened := l // what returns nil, err sets l
	defer func() {
		if err != nil {
			opened.Close()
		}
	}()
	if l.Daemon, err = openDaemon(dir, o.log, false); err != nil {
		return nil, err
	}
	if err := l.prepare(o); err != nil {
		return nil, err
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	l.stop = stop
	l.client, _ = socketClients(dir)
	l.work.Go(func() {
		if err := l.Run(running); err != nil && running.Err() == nil {
			l.failed <- err
		}
	})
	select {
	case <-l.Ready():
	case err := <-l.failed:
		return nil, err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return l, nil
}

// prepare makes a cluster of one where there is none yet.
func (l *local) prepare(o localOptions) error {
	if o.alone {
		if err := asleep(l.Folder()); err != nil {
			return err
		}
	}
	if l.Folder().Membership() == nil {
		name, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("cannot name this node: %w", err)
		}
		if err := engine.Found(l.Folder(), "orch", name, ""); err != nil {
			return fmt.Errorf("cannot make a cluster: %w", err)
		}
	}
	if o.listen == "" {
		return nil
	}
	s, err := l.Folder().Settings()
	if err != nil {
		return err
	}
	s.Listen = o.listen
	return l.Folder().SetSettings(s)
}

// Close ends engine and agent; tasks go on running.
func (l *local) Close() {
	if l.stop != nil {
		l.stop()
		l.work.Wait()
	}
	if l.Daemon != nil {
		l.Daemon.Close()
	}
	if l.log != nil {
		l.log.Close()
	}
}

// bareNow waits until nothing is left of any task.
func (l *local) bareNow(ctx context.Context) { _ = until(ctx, 20*time.Millisecond, l.Bare) }

// startDaemon runs this program in the background, as args say, and waits
// until it is at work.
func startDaemon(ctx context.Context, dir string, args ...string) (*api.HostStatus, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the data folder: %w", err)
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("cannot start the daemon: %w", err)
	}
	logPath := filepath.Join(dir, "engine.log")
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot write the daemon's log: %w", err)
	}
	defer log.Close()
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), "ORCH_HOME="+dir)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("cannot start the daemon: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }() // ends with the daemon, or with this process
	running := func(s *api.HostStatus) bool { return s.State == "running" || s.State == "locked" }
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case err := <-ended:
			if s, err := hostStatus(ctx, dir, running); err == nil {
				return s, nil // another orch was faster
			}
			return nil, fmt.Errorf("the daemon ended at once (%v): %s", err, lastLine(logPath))
		case <-tick.C:
			try, cancel := context.WithTimeout(ctx, startWithin)
			s, err := hostStatus(try, dir, func(s *api.HostStatus) bool { return running(s) || len(ended) > 0 })
			cancel()
			switch {
			case err == nil && running(s):
				return s, nil
			case err != nil && !errors.Is(err, errNoCluster) && len(ended) == 0:
				return nil, err
			}
		}
	}
}

// lastLine of a log file, or where to find it.
func lastLine(path string) string {
	b, err := os.ReadFile(path)
	if err != nil || len(b) == 0 {
		return "its log is " + path
	}
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return lines[len(lines)-1] + " (its log is " + path + ")"
}

// allStopped says that no stack is wanted to run.
func allStopped(ctx context.Context, client clusterClient) bool {
	list, err := client.ListStacks(ctx, connect.NewRequest(&api.ListStacksRequest{}))
	if err != nil {
		return false
	}
	for _, s := range list.Msg.Stacks {
		if !s.Stopped {
			return false
		}
	}
	return true
}

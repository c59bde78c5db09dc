package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"connectrpc.com/connect"

	"orch/agent"
	"orch/engine"
	"orch/engine/api/apiconnect"
	"orch/engine/ca"
	"orch/playbooks"
)

// home is the folder of all that orch keeps on this machine.
func home() (string, error) {
	if dir := os.Getenv("ORCH_HOME"); dir != "" {
		return filepath.Abs(dir)
	}
	if dir := os.Getenv("XDG_STATE_HOME"); dir != "" {
		return filepath.Join(dir, "orch"), nil
	}
	dir, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("cannot find a folder for orch: %w; set ORCH_HOME", err)
	}
	return filepath.Join(dir, ".local", "state", "orch"), nil
}

// target is how the CLI reaches a cluster: written by whoever runs it.
type target struct {
	Address       string
	PID           int
	CA, Cert, Key []byte
}

func targetPath(dir string) string { return filepath.Join(dir, "operator.json") }

type clusterClient = apiconnect.ClusterServiceClient

var errNoCluster = errors.New("no cluster runs here: `orch run PLAYBOOK` starts one")

// connectCluster reaches the cluster that runs on this machine; one that is
// just starting is waited for.
func connectCluster(ctx context.Context) (clusterClient, *target, error) {
	dir, err := home()
	if err != nil {
		return nil, nil, err
	}
	deadline := time.NewTimer(startWithin)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		pid, used := engine.InUse(dir)
		if !used {
			return nil, nil, errNoCluster
		}
		t, err := readTarget(dir)
		if err != nil {
			return nil, nil, err
		}
		if t != nil && strconv.Itoa(t.PID) == pid {
			c, err := dial(t)
			return c, t, err
		}
		select {
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		case <-deadline.C:
			return nil, nil, fmt.Errorf("the cluster's process %s does not get ready; its log is %s", pid, filepath.Join(dir, "engine.log"))
		case <-tick.C:
		}
	}
}

// startWithin is how long a cluster may take until it can be reached.
const startWithin = 30 * time.Second

// readTarget is nil where nobody wrote one yet.
func readTarget(dir string) (*target, error) {
	b, err := os.ReadFile(targetPath(dir))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read how to reach the cluster: %w", err)
	}
	t := &target{}
	if err := json.Unmarshal(b, t); err != nil {
		return nil, fmt.Errorf("%s is damaged (%w); `orch run` or `orch engine` writes it anew", targetPath(dir), err)
	}
	return t, nil
}

// free says that no engine has the data folder.
func free(dir string) bool {
	_, used := engine.InUse(dir)
	return !used
}

func dial(t *target) (clusterClient, error) {
	config, err := ca.Credentials{CA: t.CA, Cert: t.Cert, Key: t.Key}.ClientTLS(ca.ProtoHTTP)
	if err != nil {
		return nil, fmt.Errorf("cannot use the operator's certificate: %w", err)
	}
	h := &http.Client{Transport: &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}}
	return apiconnect.NewClusterServiceClient(h, "https://"+t.Address, connect.WithGRPC()), nil
}

// explain puts an error of the API into an operator's words.
func explain(err error) string {
	var c *connect.Error
	if errors.As(err, &c) {
		if c.Code() == connect.CodeUnavailable {
			return "the cluster does not answer: " + c.Message()
		}
		return c.Message()
	}
	return err.Error()
}

// local is a cluster of one in this process.
type local struct {
	engine *engine.Engine
	agent  *agent.Agent
	stop   context.CancelFunc
	work   sync.WaitGroup
	failed chan error
	client clusterClient
	target *target
	log    io.Closer
}

// startLocal runs engine and agent in this process until Close.
func startLocal(ctx context.Context, listen string, logTo io.Writer) (l *local, err error) {
	dir, err := home()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the data folder: %w", err)
	}
	l = &local{failed: make(chan error, 2)}
	if logTo == nil {
		f, err := os.OpenFile(filepath.Join(dir, "engine.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			return nil, fmt.Errorf("cannot write the engine's log: %w", err)
		}
		l.log, logTo = f, f
	}
	logger := slog.New(slog.NewTextHandler(logTo, &slog.HandlerOptions{Level: logLevel()}))
	e, err := engine.Open(engine.Config{Dir: dir, Listen: listen, Evaluator: playbooks.Sandbox{}, Version: version, Logger: logger})
	if err != nil {
		return nil, err
	}
	l.engine = e
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	l.stop = stop
	defer func() {
		if err != nil {
			l.Close()
		}
	}()
	l.work.Go(func() { l.end(running, e.Run(running)) })
	select {
	case <-e.Ready():
	case err := <-l.failed:
		return nil, err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return l, l.join(running, dir, logger)
}

func logLevel() slog.Level {
	var level slog.Level
	_ = level.UnmarshalText([]byte(os.Getenv("ORCH_LOG"))) // empty or wrong: info
	return level
}

// join starts the agent, and writes down how operators reach the cluster.
func (l *local) join(ctx context.Context, dir string, logger *slog.Logger) error {
	creds, err := l.engine.Issue(ca.Agent, l.engine.ID())
	if err != nil {
		return err
	}
	config, err := creds.ClientTLS(ca.ProtoHTTP)
	if err != nil {
		return err
	}
	l.agent, err = agent.New(agent.Config{
		NodeID: l.engine.ID(), Cluster: l.engine.ClusterID(), Dir: dir, Engine: l.engine.Address(), TLS: config,
		Version: version, Logger: logger,
	})
	if err != nil {
		return err
	}
	l.work.Go(func() { l.end(ctx, l.agent.Run(ctx)) })
	operator, err := l.engine.Issue(ca.Operator, "local")
	if err != nil {
		return err
	}
	l.target = &target{Address: l.engine.Address(), PID: os.Getpid(), CA: operator.CA, Cert: operator.Cert, Key: operator.Key}
	b, err := json.Marshal(l.target)
	if err != nil {
		return err
	}
	if err := replaceFile(targetPath(dir), b); err != nil {
		return fmt.Errorf("cannot write how to reach the cluster: %w", err)
	}
	l.client, err = dial(l.target)
	return err
}

// replaceFile writes a file that readers see whole or not at all.
func replaceFile(path string, content []byte) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, content, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

func (l *local) end(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil {
		l.failed <- err
	}
}

// Close ends engine and agent; tasks go on running.
func (l *local) Close() {
	l.stop()
	l.work.Wait()
	if err := l.engine.Close(); err != nil {
		fmt.Fprintln(os.Stderr, "orch: the engine did not end well:", err)
	}
	if l.log != nil {
		l.log.Close()
	}
}

// bare waits until nothing is left of any task.
func (l *local) bare(ctx context.Context) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !l.agent.Bare() {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// startDaemon leaves an engine in the background and waits until it answers.
func startDaemon(ctx context.Context) (clusterClient, error) {
	dir, err := home()
	if err != nil {
		return nil, err
	}
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
	cmd := exec.Command(self, "engine")
	cmd.Env = append(os.Environ(), "ORCH_HOME="+dir)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("cannot start the daemon: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }() // ends with the daemon, or with this process
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case err := <-ended:
			if c, _, err := connectCluster(ctx); err == nil {
				return c, nil // another orch was faster
			}
			return nil, fmt.Errorf("the daemon ended at once (%v); its log is %s", err, logPath)
		case <-tick.C:
			if c, t, err := connectCluster(ctx); err == nil && t.PID == cmd.Process.Pid {
				return c, nil
			}
		}
	}
}

package docker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"syscall"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/docker/docker/client"

	"orch/agent/task"
	"orch/agent/taskfiles"
	"orch/engine/api"
)

// Config says which daemon to use, and for whom.
type Config struct {
	Cluster    string       // id of the cluster, on every label
	Node       string       // name of this node, a label; may be empty
	Host       string       // such as "unix:///var/run/docker.sock"; empty: $DOCKER_HOST, else that
	SecretsDir string       // on tmpfs; empty: /run/orch/CLUSTER, else under /dev/shm
	Logger     *slog.Logger // nil: slog.Default()
	// Plane, if set, makes networks reach other hosts and knows the names of
	// services; else each is this host's alone, and Docker's resolver knows them.
	Plane Plane
}

// Plane is the part of the data plane that Docker's networks need.
type Plane interface {
	// Bridge is the name to give a network's bridge.
	Bridge(vni uint32) string
	// Attach is called once the bridge is there, before a container uses it.
	Attach(vni uint32)
}

// Runtime implements worker.Runtime over the Docker API.
type Runtime struct {
	cfg    Config
	docker *client.Client
	files  *taskfiles.Dir
	log    *slog.Logger
	busy   locks // one holder for "image NAME", "network STACK/NAME", "task ID"

	mu       sync.Mutex
	images   map[string]imageUser // seen on this node
	networks map[string]made      // by "stack/name"
	using    map[string]int       // stacks for which containers are being made
}

// New connects to nothing yet: a daemon that is away shows in Facts and in
// the errors of the other methods, and may come later. It fails if the host
// can't be parsed or SecretsDir is not on tmpfs.
func New(cfg Config) (*Runtime, error) {
	files, err := taskfiles.Open(cfg.SecretsDir, cfg.Cluster)
	if err != nil {
		return nil, err
	}
	opts := []client.Opt{client.FromEnv, client.WithAPIVersionNegotiation()}
	if cfg.Host != "" {
		opts = append(opts, client.WithHost(cfg.Host))
	}
	c, err := client.NewClientWithOpts(opts...)
	if err != nil {
		return nil, fmt.Errorf("cannot use Docker: %w", err)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	return &Runtime{
		cfg: cfg, docker: c, files: files, log: cfg.Logger,
		images: map[string]imageUser{}, networks: map[string]made{}, using: map[string]int{},
	}, nil
}

// Local says whether the daemon that a Runtime uses by default is this host's.
func Local() bool {
	host := os.Getenv("DOCKER_HOST")
	return host == "" || strings.HasPrefix(host, "unix://")
}

// Close gives up the connections to the daemon. Containers go on.
func (r *Runtime) Close() error { return r.docker.Close() }

// Name is "docker".
func (r *Runtime) Name() string { return "docker" }

// Facts asks the daemon for its version.
func (r *Runtime) Facts(ctx context.Context) *api.RuntimeFacts {
	v, err := r.docker.ServerVersion(ctx)
	if err != nil {
		return &api.RuntimeFacts{Name: "docker", Error: r.plain(err).Error()}
	}
	return &api.RuntimeFacts{Name: "docker", Version: v.Version}
}

// Prepare gets the image, networks, volumes and files of t.
func (r *Runtime) Prepare(ctx context.Context, t *task.Task, progress func(string)) error {
	if progress == nil {
		progress = func(string) {}
	}
	err := r.ensureImage(ctx, t.Spec.Image, t.Spec.Pull, progress)
	if err == nil {
		_, err = r.ensureNetworks(ctx, t)
	}
	if err == nil {
		_, err = r.ensureVolumes(ctx, t)
	}
	if err == nil {
		_, err = r.writeFiles(r.named(t))
	}
	if err != nil {
		return fmt.Errorf("cannot prepare task %q: %w", t.ID, err)
	}
	return nil
}

// plain says in an operator's words what Docker's client reported.
func (r *Runtime) plain(err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if client.IsErrConnectionFailed(err) {
		cause := err // the innermost says why: "permission denied", "connection refused"
		for next := cause; next != nil; next = errors.Unwrap(next) {
			cause = next
		}
		var sys syscall.Errno
		if errors.As(err, &sys) {
			cause = sys
		}
		//lint:ignore ST1005 Docker is a name
		return fmt.Errorf("Docker does not answer at %s: %w", r.docker.DaemonHost(), cause)
	}
	const prefix = "Error response from daemon: "
	if text := err.Error(); strings.HasPrefix(text, prefix) {
		return reworded{strings.TrimPrefix(text, prefix), err}
	}
	return err
}

// reworded is an error under another text.
type reworded struct {
	text  string
	cause error
}

func (e reworded) Error() string { return e.text }
func (e reworded) Unwrap() error { return e.cause }

func absent(err error) bool { return cerrdefs.IsNotFound(err) }

// locks lets one goroutine at a time hold a key. The zero value is ready.
type locks struct {
	mu   sync.Mutex
	held map[string]chan struct{} // closed when the holder lets go
}

// lock waits for the key, or for ctx. The caller must call unlock.
func (l *locks) lock(ctx context.Context, key string) (unlock func(), err error) {
	for {
		l.mu.Lock()
		gone, busy := l.held[key]
		if !busy {
			if l.held == nil {
				l.held = map[string]chan struct{}{}
			}
			mine := make(chan struct{})
			l.held[key] = mine
			l.mu.Unlock()
			return func() {
				l.mu.Lock()
				delete(l.held, key)
				l.mu.Unlock()
				close(mine)
			}, nil
		}
		l.mu.Unlock()
		select {
		case <-gone:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

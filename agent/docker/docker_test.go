package docker_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/volume"
	"github.com/docker/docker/client"

	"orch/agent/docker"
	"orch/agent/runtimetest"
	"orch/agent/worker"
)

var _ worker.Runtime = (*docker.Runtime)(nil)

// daemon is Docker's client with an image that holds the suite's program.
func daemon(t testing.TB) (c *client.Client, cluster, ref, secrets string) {
	c, err := client.NewClientWithOpts(client.FromEnv, client.WithAPIVersionNegotiation())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_, err = c.Ping(t.Context())
	runtimetest.Need(t, err == nil && os.Geteuid() == 0, "root and a Docker daemon")
	prog, err := os.ReadFile(runtimetest.Build(t))
	if err != nil {
		t.Fatal(err)
	}
	if secrets, err = os.MkdirTemp("/dev/shm", "orch-test-"); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(secrets, 0o711); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(secrets) })
	cluster = filepath.Base(secrets)
	ref = cluster + "-suite:1"
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	_ = w.WriteHeader(&tar.Header{Name: "prog", Mode: 0o755, Size: int64(len(prog))})
	_, _ = w.Write(prog)
	w.Close()
	out, err := c.ImageImport(t.Context(), image.ImportSource{Source: &b, SourceName: "-"}, ref, image.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, out)
	out.Close()
	t.Cleanup(func() {
		if _, err := c.ImageRemove(context.Background(), ref, image.RemoveOptions{Force: true}); err != nil {
			t.Error(err)
		}
	})
	return c, cluster, ref, secrets
}

func open(t testing.TB, cluster, secrets string) *docker.Runtime {
	rt, err := docker.New(docker.Config{Cluster: cluster, Node: "n1", SecretsDir: secrets})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { rt.Close() })
	return rt
}

func TestConformance(t *testing.T) {
	c, cluster, ref, secrets := daemon(t)
	runtimetest.Run(t, runtimetest.Fixture{
		Cluster: cluster, Image: ref, Prog: "/prog", Limits: true, Root: true,
		New: func(t *testing.T) worker.Runtime { return open(t, cluster, secrets) },
		Left: func(t *testing.T) (left []string) {
			ours := filters.NewArgs(filters.Arg("label", "orch.cluster="+cluster))
			containers, err1 := c.ContainerList(t.Context(), container.ListOptions{All: true, Filters: ours})
			networks, err2 := c.NetworkList(t.Context(), network.ListOptions{Filters: ours})
			volumes, err3 := c.VolumeList(t.Context(), volume.ListOptions{Filters: ours})
			if err1 != nil || err2 != nil || err3 != nil {
				t.Fatal(err1, err2, err3)
			}
			for _, x := range containers {
				left = append(left, fmt.Sprint(x.Names))
			}
			for _, x := range networks {
				left = append(left, x.Name)
			}
			for _, x := range volumes.Volumes {
				left = append(left, x.Name)
			}
			files, _ := filepath.Glob(secrets + "/*")
			return append(left, files...)
		},
	})
}

package hosts

import (
	"archive/tar"
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sync/errgroup"
)

// Load makes an image on each host with a small static HTTP server in it, the
// program in testserver: see there what it does. It builds with `go`, so it
// works within this module only.
func (s *Set) Load(ctx context.Context, image string) error {
	program := filepath.Join(s.Dir, "testserver")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, "orch/cmd/internal/hosts/testserver")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if err := run(build); err != nil {
		return err
	}
	content, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for _, h := range []*tar.Header{
		{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777},
		{Name: "testserver", Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(content))},
	} {
		if err := w.WriteHeader(h); err != nil {
			return err
		}
	}
	if _, err := w.Write(content); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	var all errgroup.Group
	for _, h := range s.Hosts {
		all.Go(func() error {
			cmd := exec.CommandContext(ctx, "docker", "-H", "unix://"+h.Docker, "import", "-c", `ENTRYPOINT ["/testserver"]`, "-", image)
			cmd.Stdin = bytes.NewReader(archive.Bytes())
			return run(cmd)
		})
	}
	return all.Wait()
}

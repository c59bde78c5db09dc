package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// Program is one that Go builds: from the Go module proxy, or our own.
type Program struct {
	Name    string // of the binary
	Package string // with @version: from the module proxy; without: from this checkout
	Version string // "": found by the content
	Tags    string
	LDFlags string
}

// What the demo runs. Telegraf is built with the plugins that the playbook
// uses and no others: all of them take 3.4 GB of sources.
var (
	influxd = Program{
		Name: "influxd", Version: "1.8.3",
		Package: "github.com/influxdata/influxdb/cmd/influxd@v1.8.3",
		Tags:    "timetzdata",
		LDFlags: "-s -w -X main.version=1.8.3",
	}
	telegraf = Program{
		Name: "telegraf", Version: "1.37.2",
		Package: "github.com/influxdata/telegraf/cmd/telegraf@v1.37.2",
		Tags:    "timetzdata,custom,inputs.cpu,inputs.mem,inputs.disk,inputs.system,inputs.net,outputs.influxdb",
		LDFlags: "-s -w -X github.com/influxdata/telegraf/internal.Version=1.37.2",
	}
	dashboard = Program{
		Name: "dashboard", Package: "orch/cmd/dashboard",
		Tags:    "timetzdata",
		LDFlags: "-s -w",
	}
)

// build puts the program into dir/name/version/ once and gives its path; what
// comes from this checkout is built each time (Go's own cache makes it quick).
func (p *Preparer) build(ctx context.Context, prog Program) (string, error) {
	dir := filepath.Join(p.Cache, "programs", prog.Name+"-"+prog.Version)
	path := filepath.Join(dir, prog.Name)
	own := !strings.Contains(prog.Package, "@")
	if _, err := os.Stat(path); err == nil && !own {
		return path, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	// Another demo, or a test, may be at the same.
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", err
	}
	if _, err := os.Stat(path); err == nil && !own {
		return path, nil
	}
	// Made beside and then moved, so that what is there is whole.
	part, err := os.MkdirTemp(dir, "part-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(part)
	args := []string{"-trimpath", "-tags", prog.Tags, "-ldflags", prog.LDFlags, prog.Package}
	// Without GOFLAGS: a -mod=… in it would be refused. Without VCS stamps, as
	// the image's tag is the hash of the program. CGO off: images hold no libc.
	env := append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false", "GOWORK=off")
	var cmd *exec.Cmd
	if own {
		cmd = exec.CommandContext(ctx, "go", append([]string{"build", "-o", filepath.Join(part, prog.Name)}, args...)...)
		cmd.Env = env
	} else {
		p.Say("building %s %s from source with the Go module proxy (once, 1 to 3 minutes) …", prog.Name, prog.Version)
		cmd = exec.CommandContext(ctx, "go", append([]string{"install"}, args...)...)
		cmd.Dir = part // outside of any module
		cmd.Env = append(env, "GOBIN="+part, "GO111MODULE=on")
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("cannot build %s: %w\n%s", prog.Package, err, tail(out.String(), 15))
	}
	if err := os.Rename(filepath.Join(part, prog.Name), path); err != nil {
		return "", err
	}
	if !own {
		p.Say("built %s %s", prog.Name, prog.Version)
	}
	return path, nil
}

// tail gives the last n lines of text.
func tail(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

package main

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// Preparer finds or makes what tick.star runs.
type Preparer struct {
	Cache   string // folder for what is built
	Runtime string // docker | process; "": docker where a daemon answers
	Say     func(format string, args ...any)
	Docker  *Docker // set by Prepare for the docker runtime
}

// Params are the playbook's.
type Params map[string]string

// Args are Params as arguments of `orch run`, in order of their names.
func (p Params) Args() []string {
	var args []string
	for _, k := range slices.Sorted(maps.Keys(p)) {
		args = append(args, "--set", k+"="+p[k])
	}
	return args
}

// Bin is the folder of the programs for the process runtime.
func (p *Preparer) Bin() string { return filepath.Join(p.Cache, "bin") }

// image is one service's image: the official one where it can be had, else
// one that holds our own build of the same program, or a stand-in.
type image struct {
	param    string
	official string
	program  Program
	ref      string // of our own, without the tag
	layout   layout
}

// layout is what an image holds beside the program, and how it starts.
type layout struct {
	dirs    []string
	changes []string
}

var images = []image{
	{"influxdb_image", "influxdb:1.8", influxd, "orch-demo/influxdb", layout{
		dirs: []string{"var/lib/influxdb/"},
		changes: []string{
			`ENTRYPOINT ["/usr/bin/influxd"]`, `EXPOSE 8086`, `VOLUME /var/lib/influxdb`,
			`ENV INFLUXDB_META_DIR=/var/lib/influxdb/meta`,
			`ENV INFLUXDB_DATA_DIR=/var/lib/influxdb/data`,
			`ENV INFLUXDB_DATA_WAL_DIR=/var/lib/influxdb/wal`,
			`ENV INFLUXDB_REPORTING_DISABLED=true`,
		}}},
	{"telegraf_image", "telegraf:1.37", telegraf, "orch-demo/telegraf", layout{
		dirs:    []string{"etc/telegraf/"},
		changes: []string{`ENTRYPOINT ["/usr/bin/telegraf"]`, `CMD ["--config", "/etc/telegraf/telegraf.conf"]`}}},
	{"dashboard_image", "chronograf:1.10", dashboard, "orch-demo/dashboard", layout{
		changes: []string{`ENTRYPOINT ["/usr/bin/dashboard"]`, `EXPOSE 8888`, `USER 65534:65534`}}},
}

// Prepare gives the parameters for tick.star. It can be called again, and is
// quick where nothing is to be made.
func (p *Preparer) Prepare(ctx context.Context) (Params, error) {
	switch p.Runtime {
	case "", "docker":
		d, err := FindDocker(ctx)
		if err == nil {
			p.Docker, p.Runtime = d, "docker"
			return p.prepareImages(ctx)
		}
		if p.Runtime == "docker" {
			return nil, err
		}
		p.Say("%v; running plain processes instead", err)
		p.Runtime = "process"
		fallthrough
	case "process":
		return p.preparePrograms(ctx)
	}
	return nil, fmt.Errorf("unknown runtime %q: docker or process", p.Runtime)
}

func (p *Preparer) prepareImages(ctx context.Context) (Params, error) {
	params := Params{"runtime": "docker"}
	var mu sync.Mutex // params
	err := each(len(images), func(i int) error {
		ref, err := p.image(ctx, images[i])
		mu.Lock()
		defer mu.Unlock()
		params[images[i].param] = ref
		return err
	})
	return params, err
}

// image gives a reference that is there locally.
func (p *Preparer) image(ctx context.Context, im image) (string, error) {
	if p.Docker.HasImage(ctx, im.official) {
		return im.official, nil
	}
	own := im.ref + ":" + im.program.Version
	if im.program.Version != "" && p.Docker.HasImage(ctx, own) {
		return own, nil
	}
	if p.registryAnswers(ctx, im) {
		p.Say("pulling %s …", im.official)
		err := p.Docker.Pull(ctx, im.official)
		if err == nil {
			return im.official, nil
		}
		p.Say("cannot pull %s (%v); building instead", im.official, err)
	}
	goos, goarch, err := p.Docker.Architecture(ctx)
	if err != nil {
		return "", err
	}
	if goos != goruntime.GOOS || goarch != goruntime.GOARCH {
		return "", fmt.Errorf("image %s is not to be had, and Docker's %s/%s programs can't be built on %s/%s",
			im.official, goos, goarch, goruntime.GOOS, goruntime.GOARCH)
	}
	path, err := p.build(ctx, im.program)
	if err != nil {
		return "", err
	}
	if im.program.Version == "" { // our own program: its content is its version
		sum, err := digest(path)
		if err != nil {
			return "", err
		}
		own = im.ref + ":" + sum[:12]
		if p.Docker.HasImage(ctx, own) {
			return own, nil
		}
		stale, _ := p.Docker.Images(ctx, im.ref) // tidying: not worth an error
		defer func() {
			for _, ref := range stale {
				p.Docker.Remove(ctx, ref)
			}
		}()
	}
	if err := p.Docker.Import(ctx, own, im.layout.changes, func(w io.Writer) error {
		return writeRoot(w, path, im.layout.dirs)
	}); err != nil {
		return "", fmt.Errorf("cannot make image %s: %w", own, err)
	}
	p.Say("made image %s", own)
	return own, nil
}

// registryAnswers remembers a no for an hour: asking costs seconds where there
// is no registry, and the own dashboard is asked for on each run.
func (p *Preparer) registryAnswers(ctx context.Context, im image) bool {
	mark := filepath.Join(p.Cache, "no-registry-"+im.program.Name)
	if st, err := os.Stat(mark); err == nil && time.Since(st.ModTime()) < time.Hour {
		return false
	}
	if p.Docker.CanPull(ctx, im.official, 4*time.Second) {
		os.Remove(mark)
		return true
	}
	p.Say("no registry gives %s", im.official)
	if err := os.MkdirAll(p.Cache, 0o755); err == nil {
		os.WriteFile(mark, nil, 0o644) // without it, the next run asks again
	}
	return false
}

func (p *Preparer) preparePrograms(ctx context.Context) (Params, error) {
	if err := os.MkdirAll(p.Bin(), 0o755); err != nil {
		return nil, err
	}
	programs := []Program{influxd, telegraf, dashboard}
	err := each(len(programs), func(i int) error {
		path, err := p.build(ctx, programs[i])
		if err != nil {
			return err
		}
		link := filepath.Join(p.Bin(), programs[i].Name)
		if at, _ := os.Readlink(link); at == path {
			return nil
		}
		if err := os.Remove(link); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return os.Symlink(path, link)
	})
	return Params{"runtime": "process"}, err
}

// writeRoot writes an image's root: the program, and the little that programs
// expect of a system.
func writeRoot(w io.Writer, program string, dirs []string) error {
	t := tar.NewWriter(w)
	add := func(name string, mode int64, size int64) error {
		h := &tar.Header{Name: name, Mode: mode, Size: size, Typeflag: tar.TypeReg}
		if strings.HasSuffix(name, "/") {
			h.Typeflag = tar.TypeDir
		}
		return t.WriteHeader(h)
	}
	for _, d := range append([]string{"./", "etc/", "usr/", "usr/bin/", "var/", "var/lib/"}, dirs...) {
		if err := add(d, 0o755, 0); err != nil {
			return err
		}
	}
	if err := add("tmp/", 0o1777, 0); err != nil {
		return err
	}
	for name, text := range map[string]string{
		"etc/passwd": "root:x:0:0:root:/:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n",
		"etc/group":  "root:x:0:\nnogroup:x:65534:\n",
	} {
		if err := add(name, 0o644, int64(len(text))); err != nil {
			return err
		}
		if _, err := io.WriteString(t, text); err != nil {
			return err
		}
	}
	f, err := os.Open(program)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if err := add("usr/bin/"+filepath.Base(program), 0o755, st.Size()); err != nil {
		return err
	}
	if _, err := io.Copy(t, f); err != nil {
		return err
	}
	return t.Close()
}

func digest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return fmt.Sprintf("%x", h.Sum(nil)), err
}

// each calls f for 0 to n-1 at once and joins the errors.
func each(n int, f func(int) error) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = f(i) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

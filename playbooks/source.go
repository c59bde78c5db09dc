package playbooks

import (
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"orch/engine/api"
)

// Limits on what is read.
const (
	MaxFile   = 16 << 20 // bytes of one source or file
	MaxBundle = 64 << 20 // bytes of all of them
)

//go:embed lib/presets.star lib/rollout.star
var library embed.FS

// source is where modules and files come from, by id.
type source interface {
	read(id string) ([]byte, error)
	Close() error
}

// bundleSource reads what a bundle holds and nothing else.
type bundleSource map[string][]byte

func (b bundleSource) read(id string) ([]byte, error) {
	if content, ok := b[id]; ok {
		return content, nil
	}
	return nil, errors.New("the bundle doesn't hold it")
}

func (bundleSource) Close() error { return nil }

// diskSource reads below a root folder; os.Root refuses links that lead out.
type diskSource struct {
	root *os.Root
	mod  *manifest
}

// openDisk finds the root of a playbook: the nearest folder upwards with an
// orch.mod.star, else its own. id is the playbook's within it.
func openDisk(playbook string) (src *diskSource, id string, err error) {
	abs, err := filepath.Abs(playbook)
	if err != nil {
		return nil, "", err
	}
	if info, err := os.Stat(abs); err != nil {
		return nil, "", fmt.Errorf("cannot read playbook: %w", err)
	} else if info.IsDir() {
		return nil, "", fmt.Errorf("cannot read playbook: %s is a folder", playbook)
	}
	dir := filepath.Dir(abs)
	for at := dir; ; at = filepath.Dir(at) {
		if _, err := os.Stat(filepath.Join(at, "orch.mod.star")); err == nil {
			dir = at
			break
		}
		if at == filepath.Dir(at) {
			break
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, "", err
	}
	rel, err := filepath.Rel(dir, abs)
	if err != nil {
		root.Close()
		return nil, "", err
	}
	return &diskSource{root: root}, filepath.ToSlash(rel), nil
}

func (d *diskSource) Close() error { return d.root.Close() }

func (d *diskSource) read(id string) ([]byte, error) {
	pkg, file := splitID(id)
	switch pkg {
	case "":
		return d.file(file)
	case "orch":
		return readLibrary(file)
	}
	if d.mod == nil {
		m, err := readManifest(d)
		if err != nil {
			return nil, err
		}
		d.mod = m
	}
	return d.mod.read(d, pkg, file)
}

func readLibrary(file string) ([]byte, error) {
	b, err := library.ReadFile("lib/" + file)
	if err != nil {
		var names []string
		list, _ := library.ReadDir("lib")
		for _, e := range list {
			names = append(names, e.Name())
		}
		return nil, fmt.Errorf("the library has only %s", strings.Join(names, ", "))
	}
	return b, nil
}

func (d *diskSource) file(name string) ([]byte, error) {
	f, err := d.root.Open(filepath.FromSlash(name))
	if err != nil {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil, errors.New("there is no such file")
		case strings.Contains(err.Error(), "escapes"):
			return nil, errors.New("it leads outside the root, the folder of orch.mod.star or else of the playbook")
		}
		return nil, plainPathError(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, plainPathError(err)
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is not a regular file")
	}
	b, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err != nil {
		return nil, plainPathError(err)
	}
	if len(b) > MaxFile {
		return nil, fmt.Errorf("it is larger than %d MiB", MaxFile>>20)
	}
	return b, nil
}

// plainPathError leaves the path out: callers name it their way.
func plainPathError(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

func openBundle(b *api.Bundle) (bundleSource, error) {
	files := bundleSource{}
	for _, f := range b.Files {
		files[f.Path] = f.Content
	}
	if got := BundleHash(b); b.Hash != "" && b.Hash != got {
		return nil, fmt.Errorf("the bundle is damaged: its hash is %s, not %s", got, b.Hash)
	}
	return files, nil
}

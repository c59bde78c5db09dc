// Package taskfiles keeps the secrets and configs of a node's tasks as files
// on tmpfs, one private folder a task, for runtimes to mount. Nothing of a
// secret ever reaches a disk. Safe for concurrent use by different tasks;
// calls for one task must not overlap.
package taskfiles

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"orch/engine/api"
)

// Dir is a folder on tmpfs that holds one folder a task.
type Dir struct{ root string }

// Open makes root (mode 0711, so that a task's own user can reach its files,
// whose names nobody can list) and refuses one that is not on tmpfs. An empty
// root means /run/orch/<cluster> or, where /run is a disk,
// /dev/shm/orch-<cluster>.
func Open(root, cluster string) (*Dir, error) {
	if root == "" {
		root = "/dev/shm/orch-" + FolderName(cluster)
		if onTmpfs("/run") && unix.Access("/run", unix.W_OK) == nil {
			root = "/run/orch/" + FolderName(cluster)
		}
	}
	if err := os.MkdirAll(root, 0o711); err != nil {
		return nil, fmt.Errorf("cannot make the folder for secrets: %w", err)
	}
	if !onTmpfs(root) {
		return nil, fmt.Errorf("cannot keep secrets in %q: it is not on tmpfs, so they would reach a disk; use a folder under /dev/shm or /run", root)
	}
	return &Dir{root}, nil
}

func onTmpfs(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && (int64(st.Type) == unix.TMPFS_MAGIC || int64(st.Type) == unix.RAMFS_MAGIC)
}

// FolderName turns a task id such as "tick/influxdb.1#3" into one path
// element that is readable and, by six digits of a hash, unique.
func FolderName(id string) string {
	sum := sha256.Sum256([]byte(id))
	return fmt.Sprintf("%s-%x", strings.NewReplacer("/", "-", "#", "-").Replace(id), sum[:3])
}

// Write puts a task's files there, owned by uid and gid, with the modes
// asked for (0 means 0400 for a secret, 0444 for a config), and returns
// their paths in the order of files. What stands there for the id already is
// kept: a task's files never change, and something may have them mounted.
func (d *Dir) Write(id string, uid, gid int, files []*api.TaskFile) ([]string, error) {
	if len(files) == 0 {
		return nil, nil
	}
	dir := filepath.Join(d.root, FolderName(id))
	paths := make([]string, len(files))
	for i := range files {
		paths[i] = filepath.Join(dir, strconv.Itoa(i))
	}
	if _, err := os.Stat(dir); err == nil {
		return paths, nil
	}
	fresh := dir + ".new" // the rename below makes it all or nothing
	if err := os.RemoveAll(fresh); err != nil {
		return nil, err
	}
	if err := os.Mkdir(fresh, 0o700); err != nil {
		return nil, fmt.Errorf("cannot write the files of task %q: %w", id, err)
	}
	for i, f := range files {
		if err := write(filepath.Join(fresh, strconv.Itoa(i)), f, uid, gid); err != nil {
			return nil, errors.Join(fmt.Errorf("cannot write file %q of task %q: %w", f.Name, id, err), os.RemoveAll(fresh))
		}
	}
	if err := chown(fresh, uid, gid); err != nil {
		return nil, errors.Join(err, os.RemoveAll(fresh))
	}
	return paths, os.Rename(fresh, dir)
}

func write(path string, f *api.TaskFile, uid, gid int) error {
	if err := os.WriteFile(path, f.Content, 0o600); err != nil {
		return err
	}
	if err := chown(path, uid, gid); err != nil {
		return err
	}
	mode := fs.FileMode(f.Mode & 0o777)
	if mode == 0 && f.Secret {
		mode = 0o400
	} else if mode == 0 {
		mode = 0o444
	}
	return os.Chmod(path, mode)
}

func chown(path string, uid, gid int) error {
	if uid == os.Geteuid() && gid == os.Getegid() {
		return nil
	}
	return os.Chown(path, uid, gid)
}

// Chown gives a task's files to another owner.
func (d *Dir) Chown(id string, uid, gid int) error {
	return filepath.WalkDir(filepath.Join(d.root, FolderName(id)), func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return chown(path, uid, gid)
	})
}

// Remove takes a task's files away; none is no error.
func (d *Dir) Remove(id string) error {
	dir := filepath.Join(d.root, FolderName(id))
	return errors.Join(os.RemoveAll(dir), os.RemoveAll(dir+".new"))
}

// DefaultPath is where a file stands in a task that names no path:
// /run/secrets/NAME for a secret, /NAME for a config.
func DefaultPath(f *api.TaskFile) string {
	if f.Secret {
		return "/run/secrets/" + f.Name
	}
	return "/" + f.Name
}

// Path is where a file stands in its task.
func Path(f *api.TaskFile) string {
	if f.Path != "" {
		return f.Path
	}
	return DefaultPath(f)
}

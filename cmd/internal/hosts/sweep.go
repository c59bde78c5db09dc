package hosts

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// prefix begins the names of folders and cgroups; the number of the process
// that owns them follows.
const prefix = "orch-hosts-"

// Missing says what keeps this machine from having hosts; nil if nothing.
func Missing() error {
	var errs []error
	if os.Geteuid() != 0 {
		errs = append(errs, errors.New("hosts in namespaces need root"))
	}
	for _, tool := range []string{"dockerd", "docker", "ip", "iptables", "nft", "nsenter", "mount", "hostname", "ssh-keygen", "/usr/sbin/sshd"} {
		if _, err := exec.LookPath(tool); err != nil {
			errs = append(errs, errors.New("hosts in namespaces need "+tool))
		}
	}
	if kinds, err := os.ReadFile("/proc/filesystems"); err != nil || !strings.Contains(string(kinds), "\toverlay\n") {
		errs = append(errs, errors.New("hosts in namespaces need a kernel with overlay"))
	}
	return errors.Join(errs...)
}

// Sweep removes what is left of sets whose process ended without Close.
func Sweep() error {
	var errs []error
	for _, pattern := range []string{filepath.Join(os.TempDir(), prefix+"*"), "/sys/fs/cgroup/" + prefix + "*", "/sys/fs/cgroup/*/" + prefix + "*"} {
		left, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		for _, path := range left {
			owner, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(path), prefix), "-")
			pid, err := strconv.Atoi(owner)
			if err != nil || !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
				continue // another's, who may need it
			}
			if strings.HasPrefix(path, "/sys/") {
				errs = append(errs, removeCgroups(filepath.Base(path)))
			} else {
				errs = append(errs, os.RemoveAll(path))
			}
		}
	}
	return errors.Join(errs...)
}

// removeCgroups removes a cgroup and those in it from all hierarchies. The
// kernel lets go of them a moment after their last process.
func removeCgroups(name string) error {
	if name == "" {
		return nil
	}
	tops, err := filepath.Glob("/sys/fs/cgroup/*/" + name)
	if err != nil {
		return err
	}
	for _, top := range append(tops, "/sys/fs/cgroup/"+name) {
		for range 100 {
			if err = removeTree(top); err == nil {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// removeTree removes folders, from the leaves on; a cgroup's files can't be
// removed, and needn't.
func removeTree(top string) error {
	var dirs []string
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	for i := len(dirs) - 1; i >= 0 && err == nil; i-- {
		if err = syscall.Rmdir(dirs[i]); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	}
	return err
}

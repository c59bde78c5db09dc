package process

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"orch/agent/task"
	"orch/agent/taskfiles"
	"orch/engine/api"
)

// check refuses what only a container can have.
func check(s *api.TaskSpec) error {
	var all []error
	for _, o := range []struct {
		name string
		set  bool
	}{
		{"image", s.Image != ""}, {"hostname", s.Hostname != ""}, {"cap_add", len(s.CapAdd) > 0},
		{"cap_drop", len(s.CapDrop) > 0}, {"devices", len(s.Devices) > 0}, {"gpus", s.Gpus != ""},
		{"privileged", s.Privileged}, {"sysctls", len(s.Sysctls) > 0}, {"ulimits", len(s.Ulimits) > 0},
		{"security_opt", len(s.SecurityOpt) > 0}, {"shm_size", s.ShmSize != 0}, {"read_only", s.ReadOnly},
		{"tty", s.Tty}, {"log options", len(s.GetLog().GetOptions()) > 0},
		{"log driver " + s.GetLog().GetDriver(), s.GetLog().GetDriver() != "" && s.GetLog().GetDriver() != "json-file"},
	} {
		if o.set {
			all = append(all, fmt.Errorf("runtime process has no %s: only runtime docker does", o.name))
		}
	}
	for _, p := range s.HostPorts {
		if p.Port != p.Target {
			all = append(all, fmt.Errorf("runtime process can't map port %d to %d: the process listens on the host itself", p.Port, p.Target))
		}
	}
	if len(s.Entrypoint)+len(s.Command) == 0 {
		all = append(all, errors.New("a task on runtime process needs a command"))
	}
	return errors.Join(all...)
}

// plan says how t is to be run on this host, and makes the folders, volumes
// and files that this takes.
func (r *Runtime) plan(t *task.Task, dir string) (*launch, error) {
	s := t.Spec
	if err := check(s); err != nil {
		return nil, err
	}
	l := &launch{
		TaskID: t.ID, Version: t.Version, Argv: append(append([]string{}, s.Entrypoint...), s.Command...),
		Dir: s.Workdir, Grace: 10 * time.Second, StopSignal: int(unix.SIGTERM),
		Cgroup: limits{Name: taskfiles.FolderName(r.cfg.Cluster + " " + t.ID)},
	}
	if res := s.Resources; res != nil {
		l.Cgroup.CPU, l.Cgroup.Memory, l.Cgroup.Pids = res.CpusLimitMilli, res.MemoryLimit, res.Pids
	}
	if s.StopGrace != nil {
		l.Grace = s.StopGrace.AsDuration()
	}
	if s.StopSignal != "" {
		sig, err := parseSignal(s.StopSignal)
		if err != nil {
			return nil, err
		}
		l.StopSignal = int(sig)
	}
	home, err := l.setUser(s.User)
	if err != nil {
		return nil, err
	}
	if l.Dir == "" {
		l.Dir = filepath.Join(dir, "work")
		if err := os.MkdirAll(l.Dir, 0o700); err != nil {
			return nil, err
		}
		if err := l.own(l.Dir); err != nil {
			return nil, err
		}
	}
	env := map[string]string{"PATH": cmp.Or(os.Getenv("PATH"), defaultPath), "HOME": home, "ORCH_TASK": r.mark(t.ID)}
	if err := r.mount(t, l, env); err != nil {
		return nil, err
	}
	if err := r.placeFiles(t, l, env); err != nil {
		return nil, err
	}
	for k, v := range s.Env {
		env[k] = v
	}
	for k, v := range env {
		l.Env = append(l.Env, k+"="+v)
	}
	return l, nil
}

// defaultPath serves where orch itself was started without a PATH.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// mark is what ORCH_TASK says in a task's environment.
func (r *Runtime) mark(id string) string { return r.cfg.Cluster + " " + id }

func parseSignal(text string) (unix.Signal, error) {
	if n, err := strconv.Atoi(text); err == nil && n > 0 && n < 65 {
		return unix.Signal(n), nil
	}
	name := strings.ToUpper(text)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if sig := unix.SignalNum(name); sig != 0 {
		return sig, nil
	}
	return 0, fmt.Errorf("unknown signal %q", text)
}

// setUser resolves "user[:group]", by name or number; it returns the home.
func (l *launch) setUser(name string) (home string, err error) {
	l.UID, l.GID = os.Geteuid(), os.Getegid()
	if name == "" {
		home, _ = os.UserHomeDir()
		return home, nil
	}
	u, g, _ := strings.Cut(name, ":")
	found, err := user.Lookup(u)
	if err != nil {
		found, err = user.LookupId(u)
	}
	home = "/"
	if err == nil {
		home = found.HomeDir
		l.UID, _ = strconv.Atoi(found.Uid)
		l.GID, _ = strconv.Atoi(found.Gid)
		groups, _ := found.GroupIds()
		for _, id := range groups {
			if n, err := strconv.ParseUint(id, 10, 32); err == nil {
				l.Groups = append(l.Groups, uint32(n))
			}
		}
	} else if l.UID, err = strconv.Atoi(u); err != nil {
		return "", fmt.Errorf("this host has no user %q", u)
	} else {
		l.GID = 0
	}
	if g != "" {
		if found, err := user.LookupGroup(g); err == nil {
			g = found.Gid
		}
		if l.GID, err = strconv.Atoi(g); err != nil {
			return "", fmt.Errorf("this host has no group %q", g)
		}
	}
	l.SwitchUser = l.UID != os.Geteuid() || l.GID != os.Getegid()
	if l.SwitchUser && os.Geteuid() != 0 {
		return "", fmt.Errorf("cannot run as user %q: only root can run a process as somebody else", name)
	}
	return home, nil
}

func (l *launch) own(path string) error {
	if !l.SwitchUser {
		return nil
	}
	return os.Chown(path, l.UID, l.GID)
}

func (r *Runtime) mount(t *task.Task, l *launch, env map[string]string) error {
	volumes := map[string]*api.VolumeSpec{}
	for _, v := range t.Volumes {
		volumes[v.Name] = v
	}
	for _, m := range t.Spec.Mounts {
		b := bind{Source: m.Source, Target: m.Target, ReadOnly: m.ReadOnly, Size: m.Size}
		switch m.Type {
		case "volume":
			v := volumes[m.Source]
			if v == nil {
				return fmt.Errorf("mount at %q names volume %q, which the task doesn't have", m.Target, m.Source)
			}
			if v.External || v.Driver != "" && v.Driver != "local" || len(v.Options) > 0 {
				return fmt.Errorf("volume %q: external volumes, drivers and options need runtime docker", v.Name)
			}
			path, err := r.volume(t.Stack, v, l)
			if err != nil {
				return fmt.Errorf("cannot make volume %q: %w", v.Name, err)
			}
			b.Source = path
			env["ORCH_MOUNT_"+envName(m.Source)] = path
		case "tmpfs":
			b.Source = ""
		}
		if os.Geteuid() == 0 {
			l.Mounts = append(l.Mounts, b)
			continue
		}
		variable := "ORCH_MOUNT_" + envName(m.Source)
		if m.Type != "volume" {
			return fmt.Errorf("cannot mount %q: mounts need root for processes", m.Target)
		}
		if !mentions(t.Spec, variable) {
			return fmt.Errorf("cannot mount %q: mounts need root for processes; without it the command must find the folder by $%s", m.Target, variable)
		}
	}
	return nil
}

// mentions says that a task's command or environment refers to a variable: it
// finds by it what can't be put where it was asked for without root.
func mentions(s *api.TaskSpec, variable string) bool {
	in := func(text string) bool { return strings.Contains(text, variable) }
	return slices.ContainsFunc(s.Entrypoint, in) || slices.ContainsFunc(s.Command, in) ||
		slices.ContainsFunc(slices.Collect(maps.Values(s.Env)), in)
}

func envName(name string) string {
	return strings.Map(func(c rune) rune {
		if c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' {
			return c
		}
		return '_'
	}, strings.ToUpper(name))
}

// volume makes a volume's folder, which belongs to the first user of it.
func (r *Runtime) volume(stack string, v *api.VolumeSpec, l *launch) (string, error) {
	path := filepath.Join(r.cfg.Dir, "volumes", stack, v.Name)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return "", err
	}
	if v.OnRemove == "delete" {
		if err := os.WriteFile(deleteMark(path), nil, 0o600); err != nil {
			return "", err
		}
	}
	return path, l.own(path)
}

// deleteMark stands beside a volume that goes with its stack.
func deleteMark(volume string) string {
	return filepath.Join(filepath.Dir(volume), "."+filepath.Base(volume)+".delete")
}

func (r *Runtime) placeFiles(t *task.Task, l *launch, env map[string]string) error {
	paths, err := r.files.Write(t.ID, l.UID, l.GID, t.Files)
	if err != nil {
		return err
	}
	for i, f := range t.Files {
		target := taskfiles.Path(f)
		kind := "CONFIG"
		if f.Secret {
			kind = "SECRET"
		}
		env["ORCH_"+kind+"_"+envName(f.Name)] = paths[i]
		if os.Geteuid() == 0 {
			l.Mounts = append(l.Mounts, bind{Source: paths[i], Target: target, ReadOnly: true})
			continue
		}
		if target == taskfiles.DefaultPath(f) || mentions(t.Spec, "ORCH_"+kind+"_"+envName(f.Name)) {
			continue // nobody asked for it there; the variable says where it is
		}
		if !strings.HasPrefix(target, l.Dir+"/") {
			return fmt.Errorf("cannot put %q at %q: that needs root for processes; without it use a path under the working folder, or $ORCH_%s_%s", f.Name, target, kind, envName(f.Name))
		}
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		if at, err := os.Readlink(target); err != nil || at != paths[i] {
			if err := os.Symlink(paths[i], target); err != nil {
				return err
			}
		}
		l.Links = append(l.Links, target)
	}
	return nil
}

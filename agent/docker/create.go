package docker

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/versions"
	"github.com/docker/go-connections/nat"

	"orch/agent/task"
	"orch/agent/taskfiles"
	"orch/engine/api"
)

// request is what Docker is asked to create.
type request struct {
	name   string
	config *container.Config
	host   *container.HostConfig
	net    *network.NetworkingConfig
	more   []attached // networks to connect before the start, beyond the first
}

// containerName is readable, and unique by a hash over cluster and task.
func containerName(cluster, id string) string {
	unique := taskfiles.FolderName(cluster + " " + id)
	plain := taskfiles.FolderName(id)
	return "orch-" + plain[:len(plain)-6] + unique[len(unique)-6:]
}

// build turns a task into a request; networks, volumes and files are the
// names and paths that they have on this node.
func (r *Runtime) build(t *task.Task, networks []attached, volumes map[string]string, files []string) (*request, error) {
	s := t.Spec
	q := &request{name: containerName(r.cfg.Cluster, t.ID)}
	q.config = &container.Config{
		Image: s.Image, Entrypoint: s.Entrypoint, Cmd: s.Command, User: s.User,
		WorkingDir: s.Workdir, Hostname: s.Hostname, Tty: s.Tty,
		StopSignal:  s.StopSignal,
		Healthcheck: &container.HealthConfig{Test: []string{"NONE"}}, // agent/health asks
		Labels:      map[string]string{},
	}
	for k, v := range s.Env {
		q.config.Env = append(q.config.Env, k+"="+v)
	}
	for k, v := range t.Labels {
		q.config.Labels[k] = v
	}
	for k, v := range map[string]string{
		labelCluster: r.cfg.Cluster, labelNode: r.cfg.Node, labelTask: t.ID, labelVersion: t.Version,
		labelStack: t.Stack, labelService: t.Service, labelSlot: t.Slot,
	} {
		q.config.Labels[k] = v
	}
	init := s.Init
	q.host = &container.HostConfig{
		RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyDisabled},
		Init:          &init, CapAdd: s.CapAdd, CapDrop: s.CapDrop, Privileged: s.Privileged,
		Sysctls: s.Sysctls, ShmSize: s.ShmSize, ReadonlyRootfs: s.ReadOnly,
		LogConfig: container.LogConfig{Type: "json-file", Config: map[string]string{"max-size": "10m", "max-file": "3"}},
	}
	if driver := s.GetLog().GetDriver(); driver != "" && driver != "json-file" {
		q.host.LogConfig = container.LogConfig{Type: driver, Config: s.Log.Options}
	} else {
		for k, v := range s.GetLog().GetOptions() {
			q.host.LogConfig.Config[k] = v
		}
	}
	var err error
	for _, step := range []func(*request, *task.Task) error{addResources, addDevices, addSecurity, addPorts} {
		err = errors.Join(err, step(q, t))
	}
	err = errors.Join(err, addMounts(q, t, volumes, files))
	r.addNetworks(q, t, networks)
	return q, err
}

func addResources(q *request, t *task.Task) error {
	if res := t.Spec.Resources; res != nil {
		q.host.NanoCPUs = res.CpusLimitMilli * 1e6
		if res.CpusMilli > 0 {
			q.host.CPUShares = max(2, res.CpusMilli*1024/1000)
		}
		q.host.Memory = res.MemoryLimit
		q.host.MemorySwap = res.MemoryLimit // no swap on top
		q.host.MemoryReservation = res.Memory
		if res.MemoryLimit > 0 {
			q.host.MemoryReservation = min(res.Memory, res.MemoryLimit)
		}
		if res.Pids > 0 {
			q.host.PidsLimit = &res.Pids
		}
	}
	for name, text := range t.Spec.Ulimits {
		u := &container.Ulimit{Name: name}
		soft, hard, both := strings.Cut(text, ":")
		if !both {
			hard = soft
		}
		var err1, err2 error
		u.Soft, err1 = limit(soft)
		u.Hard, err2 = limit(hard)
		if err := errors.Join(err1, err2); err != nil {
			return fmt.Errorf("bad ulimit %s=%q: %w", name, text, err)
		}
		q.host.Ulimits = append(q.host.Ulimits, u)
	}
	return nil
}

func limit(text string) (int64, error) {
	if text == "unlimited" {
		return -1, nil
	}
	return strconv.ParseInt(text, 10, 64)
}

func addDevices(q *request, t *task.Task) error {
	for _, d := range t.Spec.Devices {
		parts := strings.Split(d, ":")
		m := container.DeviceMapping{PathOnHost: parts[0], PathInContainer: parts[0], CgroupPermissions: "rwm"}
		switch {
		case len(parts) > 3:
			return fmt.Errorf("bad device %q: want /dev/a[:/dev/b[:rwm]]", d)
		case len(parts) == 3:
			m.PathInContainer, m.CgroupPermissions = parts[1], parts[2]
		case len(parts) == 2:
			m.PathInContainer = parts[1]
		}
		q.host.Devices = append(q.host.Devices, m)
	}
	if g := t.Spec.Gpus; g != "" {
		count := -1
		if g != "all" {
			var err error
			if count, err = strconv.Atoi(g); err != nil || count < 1 {
				return fmt.Errorf("bad gpus %q: want \"all\" or a count", g)
			}
		}
		q.host.DeviceRequests = []container.DeviceRequest{{Count: count, Capabilities: [][]string{{"gpu"}}}}
	}
	return nil
}

// addSecurity passes security options on; a seccomp profile is a file on
// this node, whose content is what the daemon wants.
func addSecurity(q *request, t *task.Task) error {
	for _, opt := range t.Spec.SecurityOpt {
		if path, ok := strings.CutPrefix(opt, "seccomp="); ok && filepath.IsAbs(path) {
			profile, err := os.ReadFile(path)
			if err != nil {
				return fmt.Errorf("cannot read seccomp profile: %w", err)
			}
			opt = "seccomp=" + string(profile)
		}
		q.host.SecurityOpt = append(q.host.SecurityOpt, opt)
	}
	return nil
}

func addPorts(q *request, t *task.Task) error {
	for _, p := range t.Spec.HostPorts {
		proto := p.Protocol
		if proto != "udp" {
			proto = "tcp"
		}
		port, err := nat.NewPort(proto, strconv.Itoa(int(p.Target)))
		if err != nil {
			return err
		}
		if q.host.PortBindings == nil {
			q.host.PortBindings, q.config.ExposedPorts = nat.PortMap{}, nat.PortSet{}
		}
		q.config.ExposedPorts[port] = struct{}{}
		q.host.PortBindings[port] = append(q.host.PortBindings[port], nat.PortBinding{HostIP: p.HostIp, HostPort: strconv.Itoa(int(p.Port))})
	}
	return nil
}

func addMounts(q *request, t *task.Task, volumes map[string]string, files []string) error {
	for _, m := range t.Spec.Mounts {
		out := mount.Mount{Type: mount.Type(m.Type), Source: m.Source, Target: m.Target, ReadOnly: m.ReadOnly}
		switch m.Type {
		case "volume":
			name, ok := volumes[m.Source]
			if !ok {
				return fmt.Errorf("mount at %q names volume %q, which the task doesn't have", m.Target, m.Source)
			}
			out.Source = name
		case "tmpfs":
			out.Source = ""
			out.TmpfsOptions = &mount.TmpfsOptions{SizeBytes: m.Size}
		case "bind":
		default:
			return fmt.Errorf("mount at %q is of unknown type %q", m.Target, m.Type)
		}
		q.host.Mounts = append(q.host.Mounts, out)
	}
	for i, f := range t.Files {
		q.host.Mounts = append(q.host.Mounts, mount.Mount{Type: mount.TypeBind, Source: files[i], Target: taskfiles.Path(f), ReadOnly: true})
	}
	return nil
}

func (r *Runtime) addNetworks(q *request, t *task.Task, networks []attached) {
	if len(networks) == 0 {
		return
	}
	first := networks[0]
	q.host.NetworkMode = container.NetworkMode(first.name)
	if first.name == "host" || first.name == "none" {
		return
	}
	q.net = &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{first.name: r.endpoint(t, first)}}
	q.more = networks[1:]
}

// hardwareSince is the version of Docker's API since which a container may have
// a hardware address in each network. Before, it went by the IP address; since
// about then it is drawn.
const hardwareSince = "1.44"

func (r *Runtime) endpoint(t *task.Task, n attached) *network.EndpointSettings {
	e := &network.EndpointSettings{}
	if n.name != "bridge" && r.cfg.Plane == nil { // Docker's default network knows no aliases
		e.Aliases = []string{t.Service}
	}
	if ip := net.ParseIP(n.Address).To4(); ip != nil {
		e.IPAMConfig = &network.EndpointIPAMConfig{IPv4Address: n.Address}
		if versions.GreaterThanOrEqualTo(r.docker.ClientVersion(), hardwareSince) {
			e.MacAddress = api.HardwareAddress(ip).String()
		}
	}
	return e
}

// seconds rounds up: a grace of 100 ms isn't none.
func seconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }

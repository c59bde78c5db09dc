package hosts

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// path is what hosts search commands in.
const path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// owned are the folders that start as the machine's and are then the host's;
// empty are those that start empty. So do /run and /dev/shm, which are on tmpfs.
var (
	owned = []string{"/etc", "/opt", "/usr/local", "/var"}
	empty = []string{"/home", "/root", "/tmp"}
)

// Host is one of a Set.
type Host struct {
	Name    string // also its hostname; all hosts of a set know each other's
	Addr    string // IPv4
	Outside string // IPv4 of the NAT that it is behind; empty: there is none
	Dir     string // holds the files of the host that outlive it
	Docker  string // its dockerd's socket, for processes outside; inside it is /var/run/docker.sock
	SSHPort int

	set  *Set
	port string // of the switch
	ns   *namespace
	nat  *nat // nil: there is none
}

func (h *Host) boot(ctx context.Context, o Options) (err error) {
	for _, dir := range empty {
		if err := os.MkdirAll(filepath.Join(h.Dir, dir), 0o755); err != nil {
			return err
		}
	}
	if h.ns, err = hold(syscall.CLONE_NEWNS|syscall.CLONE_NEWUTS|syscall.CLONE_NEWPID|syscall.CLONE_NEWNET, setup,
		"NAME="+h.Name, "SET="+h.set.Dir, "DIR="+h.Dir, "OWNED="+strings.Join(owned, " "), "EMPTY="+strings.Join(empty, " "), "HOSTS="+h.set.names()); err != nil {
		return err
	}
	if err := h.link(ctx); err != nil {
		return err
	}
	if err := run(h.Command(ctx, "sh", "-ec", fmt.Sprintf(`ip link set lo up; ip addr add %s/24 dev eth0; ip link set eth0 up
		echo 1 >/proc/sys/net/ipv4/ip_forward`, h.Addr))); err != nil {
		return err
	}
	if h.nat != nil {
		if err := run(h.Command(ctx, "ip", "route", "add", "default", "via", h.nat.inside)); err != nil {
			return err
		}
	}
	if o.SSH {
		if err := h.startSSH(ctx); err != nil {
			return err
		}
	}
	if o.Docker {
		return h.startDocker(ctx)
	}
	return nil
}

// link gives the host its eth0.
func (h *Host) link(ctx context.Context) (err error) {
	if h.Outside == "" {
		return h.set.fabric.plug(ctx, h.port, h.ns.pid)
	}
	h.nat, err = h.set.fabric.newNAT(ctx, h)
	return err
}

// setup makes the mount namespace. What a host writes to the folders it owns
// is beneath DIR; Docker's and orch's data aren't on the overlay, since no
// overlay can lie on another.
const setup = `
umask 022
mount --make-rprivate /
mount -t proc proc /proc
for d in $OWNED; do
	test -d $d || continue
	mkdir -p "$DIR/upper$d" "$DIR/work$d"
	mount -t overlay overlay -o "lowerdir=$d,upperdir=$DIR/upper$d,workdir=$DIR/work$d" $d
done
for d in docker containerd orch; do
	mkdir -p "$DIR/$d" /var/lib/$d; mount --bind "$DIR/$d" /var/lib/$d
done
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs tmpfs /dev/shm
mkdir -p /run/lock /run/sshd /run/cgroup /run/set
mount --rbind /sys/fs/cgroup /run/cgroup
mount -t sysfs sysfs /sys
mount --rbind /run/cgroup /sys/fs/cgroup
umount -R /run/cgroup; rmdir /run/cgroup
chmod 700 "$DIR/root"; chmod 1777 "$DIR/tmp"
mount --bind "$SET" /run/set
for d in $EMPTY; do mount --bind "$DIR$d" $d; done
mkdir -p "$SET"; mount --bind /run/set "$SET"
umount /run/set; rmdir /run/set
rm -f /etc/resolv.conf /etc/hostname /etc/hosts /etc/machine-id
echo nameserver 127.0.0.1 >/etc/resolv.conf
echo "$NAME" >/etc/hostname; hostname "$NAME"
printf '127.0.0.1 localhost\n%b' "$HOSTS" >/etc/hosts
tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id
`

// names is the hosts' part of /etc/hosts.
func (s *Set) names() string {
	var b strings.Builder
	for _, h := range s.Hosts {
		fmt.Fprintf(&b, `%s %s\n`, h.Addr, h.Name)
	}
	return b.String()
}

func (h *Host) halt() error {
	if h.ns == nil {
		return nil
	}
	inside, err := h.inside()
	for _, pid := range inside {
		wakeParent(pid)
	}
	err = errors.Join(err, h.ns.close())
	if h.nat != nil {
		err = errors.Join(err, h.nat.close())
	}
	h.ns = nil
	return err
}

// Command runs a program on the host, as root, in /, with this process's
// environment but for PATH. Its process is one outside that waits for the one
// inside: both are in a process group of their own, which the end of ctx
// kills. To signal what runs inside, see Signal.
func (h *Host) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	words := []string{"--target", strconv.Itoa(h.ns.pid), "--mount", "--uts", "--net", "--pid", "--", name}
	cmd := exec.CommandContext(ctx, "nsenter", append(words, args...)...)
	for _, kv := range os.Environ() {
		if key, _, _ := strings.Cut(kv, "="); key != "DOCKER_HOST" && key != "TMPDIR" && key != "PATH" {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(cmd.Env, "PATH="+path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

// Path is where a process outside finds a file of the host.
func (h *Host) Path(inside string) string {
	return filepath.Join("/proc", strconv.Itoa(h.ns.pid), "root", inside)
}

// Cut takes the host's link down: nothing reaches it, and it reaches nothing.
func (h *Host) Cut() error { return h.set.fabric.ip(context.Background(), "link set %s down", h.port) }

// Heal undoes Cut.
func (h *Host) Heal() error { return h.set.fabric.ip(context.Background(), "link set %s up", h.port) }

package hosts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// fabric is the switch that hosts hang on. It is in a network namespace of its
// own, where no firewall and no other Docker see it; one link leads from it to
// this process's namespace, so that the hosts can be reached from there.
type fabric struct {
	*namespace
	number int
}

// newFabric takes a free number: the name of the link out of the switch is the
// lock on it.
func newFabric(ctx context.Context) (*fabric, error) {
	n, err := hold(syscall.CLONE_NEWNET, "ip link add sw type bridge; ip link set sw up; ip link set lo up")
	if err != nil {
		return nil, err
	}
	f := &fabric{namespace: n}
	for f.number = 1; f.number < 255; f.number++ {
		link := "orchsw" + strconv.Itoa(f.number)
		err = ip(ctx, "link add %s type veth peer name out netns %d", link, f.pid)
		if err != nil && strings.Contains(err.Error(), "File exists") {
			continue
		}
		if err == nil {
			err = errors.Join(
				f.ip(ctx, "link set out master sw up"),
				ip(ctx, "addr add %s.1/24 dev %s", f.subnet(), link),
				ip(ctx, "link set %s up", link))
		}
		if err != nil {
			return nil, errors.Join(err, f.close())
		}
		return f, nil
	}
	return nil, errors.Join(errors.New("no number is free for a set of hosts"), f.close())
}

// subnet is the first three numbers of all addresses.
func (f *fabric) subnet() string { return "10.78." + strconv.Itoa(f.number) }

func (f *fabric) addr(i int) string { return fmt.Sprintf("%s.%d", f.subnet(), 11+i) }

// plug leads a link from a port of the switch to eth0 of the namespace that
// pid is in.
func (f *fabric) plug(ctx context.Context, port string, pid int) error {
	if err := f.ip(ctx, "link add %s type veth peer name eth0 netns %d", port, pid); err != nil {
		return err
	}
	return f.ip(ctx, "link set %s master sw up", port)
}

func (f *fabric) close() error {
	// Links would go with the namespace, but a moment later.
	_ = ip(context.Background(), "link del orchsw%d", f.number)
	return f.namespace.close()
}

// ip runs ip where the switch is.
func (f *fabric) ip(ctx context.Context, format string, args ...any) error {
	words := append([]string{"--target", strconv.Itoa(f.pid), "--net", "ip"}, strings.Fields(fmt.Sprintf(format, args...))...)
	return run(exec.CommandContext(ctx, "nsenter", words...))
}

func ip(ctx context.Context, format string, args ...any) error {
	return run(exec.CommandContext(ctx, "ip", strings.Fields(fmt.Sprintf(format, args...))...))
}

// run makes what a failed command said part of the error.
func run(cmd *exec.Cmd) error {
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(said.String()))
	}
	return nil
}

// Package hosts makes several Docker hosts of one Linux machine, for tests and
// benches: each has its own network, mount, UTS and PID namespaces, its own
// dockerd and sshd, and its own /etc, /home, /opt, /root, /run, /tmp,
// /usr/local and /var. All else is the machine's, and shared.
//
// It needs root and the tools that Missing names, and nothing from outside the
// machine: names fail at once, and there is no way out of the hosts' network.
//
// A host's first process ends when the process that made it does, however that
// ends, and takes the host with it. What stays then is a folder and some empty
// cgroups, which the next Up sweeps away. Sets in several processes at once
// don't meet. The methods may be called from any goroutine.
package hosts

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"
)

// Options say what the hosts have. The zero value makes hosts that can only
// reach each other.
type Options struct {
	// Dir holds all files of the set. It is seen under the same path inside
	// each host, where all else under /tmp is the host's own. It may not be
	// in a folder that starts as the machine's and is then the host's, such as
	// /var. Default: a new folder, which Close removes.
	Dir string
	// Docker starts a dockerd on each host, at its usual places.
	Docker bool
	// NAT is how many of the hosts, the last ones, are each behind a NAT of its
	// own: the others see the NAT's address, and can't begin to speak to it.
	NAT int
	// SSH starts an sshd on each host, on port 22, where the key of KeyFile
	// may log in as root.
	SSH bool
}

// Set is some hosts on one switch.
type Set struct {
	Dir   string // seen at this path in every host
	Hosts []*Host

	name    string // also of the cgroup that all tasks are in
	ownsDir bool
	fabric  *fabric
}

// Up makes n hosts, n1 and so on, and returns when all they should run
// answers. It fails with Missing's error where the machine can't have hosts.
func Up(ctx context.Context, n int, o Options) (_ *Set, err error) {
	if err := Missing(); err != nil {
		return nil, err
	}
	if err := Sweep(); err != nil {
		return nil, err
	}
	s := &Set{Dir: o.Dir}
	if err := s.makeDir(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if s.fabric, err = newFabric(ctx); err != nil {
		return nil, err
	}
	s.name = fmt.Sprintf("%s%d-%d", prefix, os.Getpid(), s.fabric.number)
	if o.SSH {
		if err := s.makeKeys(ctx, n); err != nil {
			return nil, err
		}
	}
	for i := range n {
		h := &Host{
			Name: fmt.Sprintf("n%d", i+1), Addr: s.fabric.addr(i), Dir: filepath.Join(s.Dir, fmt.Sprintf("n%d", i+1)),
			SSHPort: 22, set: s, port: fmt.Sprintf("p%d", i+1),
		}
		if i >= n-o.NAT {
			h.Outside, h.Addr = h.Addr, fmt.Sprintf("192.168.%d.2", i+1)
		}
		s.Hosts = append(s.Hosts, h)
	}
	var all errgroup.Group
	for _, h := range s.Hosts {
		all.Go(func() error {
			if err := h.boot(ctx, o); err != nil {
				return fmt.Errorf("cannot start host %q: %w", h.Name, err)
			}
			return nil
		})
	}
	return s, all.Wait()
}

func (s *Set) makeDir() (err error) {
	if s.Dir == "" {
		s.ownsDir = true
		if s.Dir, err = os.MkdirTemp("", fmt.Sprintf("%s%d-", prefix, os.Getpid())); err != nil {
			return err
		}
	}
	if s.Dir, err = filepath.Abs(s.Dir); err != nil {
		return err
	}
	for _, own := range owned {
		if strings.HasPrefix(s.Dir+"/", own+"/") {
			return fmt.Errorf("cannot keep hosts in %q: each host has a %s of its own", s.Dir, own)
		}
	}
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return err
	}
	return os.Chmod(s.Dir, 0o755) // also those who aren't root on a host look in
}

// Close ends all that runs on the hosts and removes them. Files in a Dir that
// the caller gave stay, those of the hosts themselves aside.
func (s *Set) Close() error {
	var errs []error
	for _, h := range s.Hosts {
		errs = append(errs, h.halt())
	}
	if s.fabric != nil {
		errs = append(errs, s.fabric.close())
	}
	errs = append(errs, removeCgroups(s.name))
	if s.ownsDir {
		errs = append(errs, os.RemoveAll(s.Dir))
	} else {
		for _, h := range s.Hosts {
			errs = append(errs, os.RemoveAll(h.Dir))
		}
	}
	return errors.Join(errs...)
}

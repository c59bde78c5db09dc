package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"connectrpc.com/connect"

	"orch/cmd/internal/socket"
	"orch/engine/api"
	"orch/engine/api/apiconnect"
	"orch/engine/folder"
)

// hostHome is where a host keeps its part of a cluster that was installed by
// bootstrap.
const hostHome = "/var/lib/orch"

// home is the folder of all that orch keeps on this machine.
func home() (string, error) {
	if dir := os.Getenv("ORCH_HOME"); dir != "" {
		return filepath.Abs(dir)
	}
	if _, err := os.Stat(filepath.Join(hostHome, "membership.json")); err == nil && os.Geteuid() == 0 {
		return hostHome, nil
	}
	if dir := os.Getenv("XDG_STATE_HOME"); dir != "" {
		return filepath.Join(dir, "orch"), nil
	}
	dir, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("cannot find a folder for orch: %w; set ORCH_HOME", err)
	}
	return filepath.Join(dir, ".local", "state", "orch"), nil
}

type hostClient = apiconnect.HostServiceClient

// socketClients ask the daemon that has the folder.
func socketClients(dir string) (clusterClient, hostClient) {
	h := socket.Client(func(ctx context.Context) (net.Conn, error) { return socket.Dial(ctx, dir) })
	return apiconnect.NewClusterServiceClient(h, socket.URL, clientOptions()), apiconnect.NewHostServiceClient(h, socket.URL, connect.WithGRPC())
}

type clusterClient = apiconnect.ClusterServiceClient

var errNoCluster = errors.New("no cluster runs here: `orch run PLAYBOOK` starts one")

// connectCluster reaches the cluster of the context that is in use, else the
// one that runs on this machine; one that is just starting is waited for.
func connectCluster(ctx context.Context) (clusterClient, error) {
	name, err := currentContext()
	if err != nil {
		return nil, err
	}
	if name != "" {
		return dialContext(ctx, name)
	}
	client, _, err := connectLocal(ctx)
	return client, err
}

// connectLocal reaches the daemon of this machine.
func connectLocal(ctx context.Context) (clusterClient, *api.HostStatus, error) {
	dir, err := home()
	if err != nil {
		return nil, nil, err
	}
	s, err := hostStatus(ctx, dir, func(s *api.HostStatus) bool { return s.State != "starting" })
	if errors.Is(err, errNoCluster) {
		if f, readErr := folder.Read(dir); readErr == nil && asleep(f) != nil {
			err = asleep(f)
		}
		return nil, nil, err
	}
	if err != nil {
		return nil, nil, err
	}
	if s.State == "locked" {
		return nil, nil, folder.ErrLocked
	}
	client, _ := socketClients(dir)
	return client, s, nil
}

// asleep is an error if this host is one of a cluster of several, and its
// daemon doesn't run: f is its folder, which no daemon has.
func asleep(f *folder.Folder) error {
	m := f.Membership()
	if m == nil {
		return nil
	}
	if s, err := f.Settings(); err != nil || s.Advertise == "" {
		return err
	}
	return fmt.Errorf("this host is node %q of cluster %q, and its orch doesn't run: start its unit, or `orch agent`", m.Name, m.ClusterName)
}

// startWithin is how long a daemon may take until it can be reached.
const startWithin = 30 * time.Second

// hostStatus waits until a daemon has the folder and is as wanted.
func hostStatus(ctx context.Context, dir string, wanted func(*api.HostStatus) bool) (*api.HostStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	_, host := socketClients(dir)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	why := "it does not answer"
	for {
		pid, used := folder.InUse(dir)
		if !used {
			return nil, errNoCluster
		}
		// The one that answers is the one that has the folder now.
		if r, err := host.Status(ctx, connect.NewRequest(&api.HostStatusRequest{})); err == nil && strconv.Itoa(int(r.Msg.Pid)) == pid {
			if wanted(r.Msg) {
				return r.Msg, nil
			}
			why = r.Msg.Reason
		}
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return nil, ctx.Err()
			}
			text := fmt.Sprintf("orch's process %s on this machine does not get ready", pid)
			if why != "" {
				text += ": " + why
			}
			return nil, fmt.Errorf("%s; its log is %s", text, filepath.Join(dir, "engine.log"))
		case <-tick.C:
		}
	}
}

// free says that no daemon has the data folder.
func free(dir string) bool {
	_, used := folder.InUse(dir)
	return !used
}

// explain puts an error of the API into an operator's words.
func explain(err error) string {
	var c *connect.Error
	if errors.As(err, &c) {
		if c.Code() == connect.CodeUnavailable {
			return "the cluster does not answer: " + c.Message()
		}
		return c.Message()
	}
	return err.Error()
}

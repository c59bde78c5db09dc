package bootstrap

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"orch/engine/api"
)

// hostRun does what is planned on one host.
type hostRun struct {
	*run
	*Seen
	ops []Op
	at  string // the op that is being done

	who     *identity
	started bool // orch was, by us: what it logged may say why it fails
	rolls   bool
	founds  bool // it begins the cluster in this run
}

func (h *hostRun) do(ctx context.Context) (err error) {
	h.at = "lock"
	if err := h.acquire(ctx); err != nil {
		return err
	}
	defer h.release(ctx)
	defer func() {
		if h.rolls {
			h.rolling.Unlock()
		}
	}()
	for _, op := range h.ops {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		h.at = op.Kind
		h.say(Event{Host: h.Name, Op: op.Kind, State: "begun", Text: op.Text})
		if err := h.op(ctx, op); err != nil {
			return fmt.Errorf("cannot %s: %w", op.Text, err)
		}
	}
	return nil
}

func (h *hostRun) op(ctx context.Context, op Op) error {
	switch op.Kind {
	case "docker":
		return h.docker(ctx)
	case "upload":
		return h.upload(ctx, h.Binaries[h.Facts.Arch])
	case "service":
		return h.service(ctx)
	case "identity":
		return h.identity(ctx)
	case "found":
		h.founds = true
		return h.found(ctx)
	case "admit":
		return h.admit(ctx)
	case "start":
		return h.start(ctx)
	case "restart":
		if h.Role == "engine" && h.id != "" { // one engine at a time, until it is up
			h.rolling.Lock()
			h.rolls = true
		}
		return h.start(ctx)
	case "role":
		return h.update(ctx, &api.UpdateNodeRequest{Role: h.Role})
	case "labels":
		return h.update(ctx, &api.UpdateNodeRequest{Labels: h.Labels})
	case "verify":
		if err := h.verify(ctx); err != nil || !h.founds {
			return err
		}
		// The others' keys came with their admission.
		return h.update(ctx, &api.UpdateNodeRequest{HostKey: h.Facts.HostKey})
	}
	panic("bootstrap: unknown op " + op.Kind)
}

// acquire takes the host's lock: a folder, which only one can make.
func (h *hostRun) acquire(ctx context.Context) error {
	owner := fmt.Sprintf("%s, since %s", h.Owner, time.Now().UTC().Format(time.RFC3339))
	_, err := h.shell.output(ctx, `mkdir -p "$(dirname "$1")" && if mkdir "$1" 2>/dev/null; then printf '%s\n' "$2" >"$1/owner"; else echo "somebody is at work on it: $(cat "$1/owner"); if that run is dead: rm -r $1" >&2; exit 1; fi`, nil, h.lock(), owner)
	return err
}

func (h *hostRun) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
	defer cancel()
	if _, err := h.shell.output(ctx, `rm -rf "$1"`, nil, h.lock()); err != nil {
		h.say(Event{Host: h.Name, Op: "lock", State: "warning", Text: fmt.Sprintf("its lock could not be taken away: %v: rm -r %s", err, h.lock())})
	}
}

const installDocker = `export DEBIAN_FRONTEND=noninteractive
case $1 in
apt-get) apt-get update -qq && apt-get install -y -qq docker.io ;;
dnf | yum) $1 install -y -q moby-engine || $1 install -y -q docker ;;
zypper) zypper -n install docker ;;
apk) apk add docker ;;
pacman) pacman -Sy --noconfirm docker ;;
esac >/dev/null || exit 1
if [ -d /run/systemd/system ]; then systemctl enable --now docker
elif command -v rc-update >/dev/null; then rc-update add docker default; rc-service docker start
else service docker start; fi >/dev/null 2>&1
i=0
until docker version >/dev/null 2>&1; do
	i=$((i + 1)); [ $i -gt 30 ] && { echo "Docker was installed, and does not answer" >&2; exit 1; }
	sleep 1
done`

func (h *hostRun) docker(ctx context.Context) error {
	_, err := h.shell.output(ctx, installDocker, nil, h.Facts.Packages)
	return err
}

// put writes a file whole or not at all, and checks what arrived.
const put = `mkdir -p "$(dirname "$1")" && cat >"$1.new" && [ "$(sha256sum "$1.new" | cut -d' ' -f1)" = "$2" ] && chmod "$3" "$1.new" && mv -f "$1.new" "$1" || { rm -f "$1.new"; echo "what arrived at $1 is not what was sent, or could not be kept" >&2; exit 1; }
command -v restorecon >/dev/null && restorecon "$1" 2>/dev/null; :`

func (h *hostRun) upload(ctx context.Context, b *Binary) error {
	f, err := os.Open(b.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = h.shell.output(ctx, put, f, h.binary(), b.Sum, "755")
	return err
}

func (h *hostRun) putText(ctx context.Context, path, text, mode string) error {
	_, err := h.shell.output(ctx, put, strings.NewReader(text), path, sum(text), mode)
	return err
}

// atBoot has the supervisor started by what starts things on this host.
const atBoot = `case $1 in
openrc) printf '#!/bin/sh\n%s start\n' "$2" >/etc/local.d/orch.start && chmod 755 /etc/local.d/orch.start && rc-update add local default ;;
sysv) ln -sf "$2" /etc/init.d/orch && if command -v update-rc.d; then update-rc.d orch defaults; else chkconfig --add orch; fi ;;
cron) { crontab -l 2>/dev/null | grep -vF "$2"; echo "@reboot $2 start"; } | crontab - ;;
rc.local) grep -qF "$2" /etc/rc.local || { grep -v '^exit 0' /etc/rc.local; printf '%s start\nexit 0\n' "$2"; } >/etc/rc.local.new && [ ! -s /etc/rc.local.new ] || { cat /etc/rc.local.new >/etc/rc.local; rm /etc/rc.local.new; } ;;
esac >/dev/null`

func (h *hostRun) service(ctx context.Context) error {
	if h.Facts.Init == "systemd" {
		if err := h.putText(ctx, unitPath, h.unit(), "644"); err != nil {
			return err
		}
		_, err := h.shell.output(ctx, "systemctl daemon-reload && systemctl enable -q orch.service", nil)
		return err
	}
	if err := h.putText(ctx, h.supervisor(), h.supervise(), "755"); err != nil {
		return err
	}
	if _, err := h.shell.output(ctx, atBoot, nil, h.Facts.Init, h.supervisor()); err != nil {
		h.say(Event{Host: h.Name, Op: "service", State: "warning", Text: fmt.Sprintf("it will not start after a reboot (%v): %s start", err, h.supervisor())})
	}
	return nil
}

func (h *hostRun) identity(ctx context.Context) error {
	out, err := h.shell.output(ctx, h.binary()+` host prepare --dir "$1" --name "$2" --advertise "$3"`, nil, h.DataDir, h.Name, h.engineAddress(h.run.Port))
	if err != nil {
		return err
	}
	h.who = &identity{}
	return json.Unmarshal([]byte(out), h.who)
}

func (h *hostRun) found(ctx context.Context) error {
	if h.who.ClusterID != "" {
		return nil // a run before came this far
	}
	_, err := h.shell.output(ctx, h.binary()+` host init --dir "$1" --name "$2" --advertise "$3" --cluster "$4"`, nil, h.DataDir, h.Name, h.engineAddress(h.run.Port), h.Cluster)
	return err
}

func (h *hostRun) admit(ctx context.Context) error {
	if h.who.ClusterID != "" && h.who.ClusterID == h.id {
		return nil
	}
	c, err := h.cluster(ctx, h.Patience)
	if err != nil {
		return err
	}
	m, err := c.Admit(ctx, &api.AdmitRequest{
		Csr: h.who.CSR, NodeId: h.who.NodeID, Name: h.Name, Role: h.Role, EngineAddress: h.engineAddress(h.run.Port), Labels: h.Labels, HostKey: h.Facts.HostKey,
	})
	if err != nil {
		return err
	}
	b, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		return err
	}
	_, err = h.shell.output(ctx, h.binary()+` host install --dir "$1"`, bytes.NewReader(b), h.DataDir)
	return err
}

// start starts orch, or starts it again.
func (h *hostRun) start(ctx context.Context) error {
	script := h.supervisor() + " restart"
	if h.Facts.Init == "systemd" {
		script = "systemctl restart orch.service"
	}
	_, err := h.shell.output(ctx, script, nil)
	h.started = err == nil
	return err
}

func (h *hostRun) update(ctx context.Context, u *api.UpdateNodeRequest) error {
	c, err := h.cluster(ctx, h.Patience)
	if err != nil {
		return err
	}
	s, err := h.status(ctx)
	if err != nil {
		return err
	}
	u.Node = s.NodeId
	return c.UpdateNode(ctx, u)
}

// status is how the host's daemon is, now.
func (h *hostRun) status(ctx context.Context) (*api.HostStatus, error) {
	out, err := h.shell.output(ctx, h.binary()+` host status --dir "$1"`, nil, h.DataDir)
	if err != nil {
		return nil, err
	}
	s := &api.HostStatus{}
	return s, protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal([]byte(out), s)
}

// verify waits until the daemon runs and the cluster says that the node is up.
func (h *hostRun) verify(ctx context.Context) error {
	began := ctx
	ctx, cancel := context.WithTimeout(ctx, h.Patience)
	defer cancel()
	last := "it does not answer"
	err := poll(ctx, func() (bool, error) {
		s, err := h.status(ctx)
		switch {
		case err != nil:
			last = err.Error()
		case s.State == "locked":
			return false, errors.New("its keys are locked: `orch cluster unlock` on the host, then run this again")
		case s.State != "running":
			last = "it is " + s.State + colon(s.Reason)
		default:
			last = h.seen(ctx, s.NodeId)
		}
		return last == "", nil
	})
	if err != nil && began.Err() == nil && ctx.Err() != nil {
		return fmt.Errorf("after %s: %s", h.Patience, last)
	}
	return err
}

// seen says what keeps the cluster from seeing the node up; "" if nothing.
func (h *hostRun) seen(ctx context.Context, id string) string {
	c, err := h.cluster(ctx, h.Patience)
	if err != nil {
		return err.Error()
	}
	nodes, err := c.Nodes(ctx)
	if err != nil {
		return err.Error()
	}
	for _, n := range nodes {
		if n.Id == id && n.Status == "up" {
			return ""
		} else if n.Id == id {
			return "the cluster says that it is " + n.Status + colon(n.StatusReason)
		}
	}
	return "the cluster does not know it"
}

// log is what orch said last, where it was started and something failed.
func (h *hostRun) log(ctx context.Context) string {
	if !h.started {
		return ""
	}
	script := `tail -n 5 "$1/orch.log"`
	if h.Facts.Init == "systemd" {
		script = "journalctl -u orch.service -n 5 --no-pager -o cat"
	}
	out, _ := h.shell.output(context.WithoutCancel(ctx), script, nil, h.DataDir)
	return strings.TrimSpace(out)
}

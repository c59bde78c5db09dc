package hosts

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// nat is a router between a host and the switch, in a namespace of its own. What
// the host begins goes out under the router's address, each connection with a port
// that only its other end gets an answer through (a port-restricted, symmetric
// NAT as of RFC 4787); what others begin is dropped.
type nat struct {
	*namespace
	inside string // the router's address on the host's side
}

const natRules = `table ip nat {
	chain out { type nat hook postrouting priority srcnat; oifname "eth0" masquerade random; }
	chain in { type filter hook forward priority filter; iifname "eth0" ct state new drop; }
}
`

func (f *fabric) newNAT(ctx context.Context, h *Host) (*nat, error) {
	ns, err := hold(syscall.CLONE_NEWNET, "ip link set lo up; echo 1 >/proc/sys/net/ipv4/ip_forward")
	if err != nil {
		return nil, err
	}
	n := &nat{namespace: ns, inside: h.Addr[:strings.LastIndexByte(h.Addr, '.')] + ".1"}
	if err := f.plug(ctx, h.port, n.pid); err != nil {
		return n, err
	}
	script := fmt.Sprintf(`ip addr add %s/24 dev eth0; ip link set eth0 up
		ip link add in type veth peer name eth0 netns %d; ip addr add %s/24 dev in; ip link set in up; nft -f -`, h.Outside, h.ns.pid, n.inside)
	cmd := exec.CommandContext(ctx, "nsenter", "--target", strconv.Itoa(n.pid), "--net", "sh", "-ec", script)
	cmd.Stdin = strings.NewReader(natRules)
	return n, run(cmd)
}

// Package virtual leads tasks from services' virtual addresses to tasks, by
// rules in each task's own network namespace: any protocol and port, at the
// kernel's speed, and the one that is asked sees who asks. What a service has
// no task for is refused at once.
package virtual

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"orch/engine/api"
)

// table is ours in each namespace.
const table = "orch"

// atOnce namespaces are worked on.
const atOnce = 4

// Addresses keeps the rules. It is safe for concurrent use.
type Addresses struct {
	Logger *slog.Logger

	mu   sync.Mutex
	done map[string]*api.Namespace  // in effect, by task
	said map[string]string          // errors that were told, by task
	gone map[string]map[string]bool // by path: targets that are none any more
}

// forgetAfter a change its flows of datagrams to targets that went begin anew:
// finding them takes a look at all that the host's kernel remembers.
const forgetAfter = 200 * time.Millisecond

// Virtual makes the rules of these namespaces; it says which, by their tasks,
// have them, and whether one failed that may do the next time.
func (a *Addresses) Virtual(all []*api.Namespace) (settled map[string]bool, again bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.done == nil {
		a.done, a.said = map[string]*api.Namespace{}, map[string]string{}
	}
	settled = map[string]bool{}
	there := map[string]bool{}
	var mu sync.Mutex
	var work sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for _, n := range all {
		there[n.Task] = true
		old := a.done[n.Task]
		if old != nil && proto.Equal(old, n) {
			mu.Lock()
			settled[n.Task] = true
			mu.Unlock()
			continue
		}
		slots <- struct{}{}
		work.Go(func() {
			defer func() { <-slots }()
			err := write(old, n)
			mu.Lock()
			defer mu.Unlock()
			if errors.Is(err, os.ErrNotExist) { // it has ended
				return
			}
			if err != nil {
				again = true
				if a.said[n.Task] != err.Error() {
					a.said[n.Task] = err.Error()
					a.Logger.Error("a task can't use virtual addresses", "task", n.Task, "error", err)
				}
				return
			}
			delete(a.said, n.Task)
			a.forgetLater(n.Path, left(old, n))
			a.done[n.Task], settled[n.Task] = n, true
		})
	}
	work.Wait()
	for id := range a.done {
		if !there[id] {
			delete(a.done, id)
			delete(a.said, id)
		}
	}
	return settled, again
}

// forgetLater has flows to targets begin anew soon; a.mu is held.
func (a *Addresses) forgetLater(path string, targets map[string]bool) {
	if len(targets) == 0 {
		return
	}
	if len(a.gone) == 0 {
		a.gone = map[string]map[string]bool{}
		time.AfterFunc(forgetAfter, func() {
			a.mu.Lock()
			all := a.gone
			a.gone = nil
			a.mu.Unlock()
			for path, targets := range all {
				if err := forgetIn(path, targets); err != nil && !errors.Is(err, os.ErrNotExist) {
					a.Logger.Warn("datagrams may still go to tasks that stop", "namespace", path, "error", err)
				}
			}
		})
	}
	if a.gone[path] == nil {
		a.gone[path] = map[string]bool{}
	}
	maps.Copy(a.gone[path], targets)
}

func forgetIn(path string, targets map[string]bool) error {
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return err
	}
	defer ns.Close()
	return forget(ns, targets)
}

// write replaces a namespace's rules in one step.
func write(old, n *api.Namespace) error {
	if old != nil && old.Path == n.Path {
		if err := fill(n, false); err == nil {
			return nil
		}
	}
	return fill(n, true)
}

// fill writes the rules; anew makes the table and its chains first, which takes
// the kernel tens of milliseconds where they are there already.
func fill(n *api.Namespace, anew bool) error {
	ns, err := netns.GetFromPath(n.Path)
	if err != nil {
		return err
	}
	defer ns.Close()
	if own, err := netns.Get(); err == nil {
		same := own.Equal(ns)
		own.Close()
		if same { // the task has ended, and its number is a process of the host now
			return os.ErrNotExist
		}
	}
	c, err := nftables.New(nftables.WithNetNSFd(int(ns)))
	if err != nil {
		return err
	}
	t := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: table}
	out := &nftables.Chain{Table: t, Name: "lead", Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityNATDest}
	none := &nftables.Chain{Table: t, Name: "refuse", Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityFilter}
	if anew {
		c.AddTable(t)
		c.AddChain(out)
		c.AddChain(none)
	}
	c.FlushChain(out)
	c.FlushChain(none)
	for _, v := range n.Virtuals {
		for _, p := range v.Ports {
			c.AddRule(&nftables.Rule{Table: t, Chain: out, Exprs: through(v.Address, p)})
		}
		to := []expr.Any{
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: net.ParseIP(v.Address).To4()},
		}
		chain := out
		switch len(v.Targets) {
		case 0:
			if len(v.Ports) > 0 {
				continue
			}
			chain = none
			to = append(to, &expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: icmpPort})
		case 1:
			to = append(to, &expr.Immediate{Register: 1, Data: net.ParseIP(v.Targets[0]).To4()}, nat())
		default:
			m := &nftables.Set{Table: t, Anonymous: true, IsMap: true, Constant: true, KeyType: nftables.TypeInteger, DataType: nftables.TypeIPAddr}
			var elements []nftables.SetElement
			for j, target := range v.Targets {
				elements = append(elements, nftables.SetElement{Key: binaryutil.NativeEndian.PutUint32(uint32(j)), Val: net.ParseIP(target).To4()})
			}
			if err := c.AddSet(m, elements); err != nil {
				return err
			}
			to = append(to,
				&expr.Numgen{Register: 1, Modulus: uint32(len(v.Targets)), Type: unix.NFT_NG_INCREMENTAL},
				&expr.Lookup{SourceRegister: 1, DestRegister: 1, IsDestRegSet: true, SetName: m.Name, SetID: m.ID}, nat())
		}
		c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: to})
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("cannot write its rules: %w", err)
	}
	return nil
}

// through leads one port to another of this host.
func through(address string, p *api.VirtualPort) []expr.Any {
	proto := byte(unix.IPPROTO_TCP)
	if p.Udp {
		proto = unix.IPPROTO_UDP
	}
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: net.ParseIP(address).To4()},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{proto}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(uint16(p.Port))},
		&expr.Immediate{Register: 1, Data: net.ParseIP(p.Host).To4()},
		&expr.Immediate{Register: 2, Data: binaryutil.BigEndian.PutUint16(uint16(p.To))},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1, RegProtoMin: 2, Specified: true},
	}
}

// icmpPort is ICMP's code for an unreachable port.
const icmpPort = 3

func nat() expr.Any {
	return &expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1}
}

// left are targets that are none any more.
func left(old, n *api.Namespace) map[string]bool {
	gone := map[string]bool{}
	for _, v := range old.GetVirtuals() {
		for _, t := range v.Targets {
			gone[t] = true
		}
	}
	for _, v := range n.Virtuals {
		for _, t := range v.Targets {
			delete(gone, t)
		}
	}
	return gone
}

// forget ends the kernel's memory of UDP flows to addresses; those of TCP go
// on, as their connections do.
func forget(ns netns.NsHandle, gone map[string]bool) error {
	if len(gone) == 0 {
		return nil
	}
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer h.Close()
	_, err = h.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, flowsTo(gone))
	return err
}

// flowsTo matches UDP flows that were led to one of the addresses.
type flowsTo map[string]bool

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (f flowsTo) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	return flow.Forward.Protocol == unix.IPPROTO_UDP && f[flow.Reverse.SrcIP.String()]
}

package builtins

import (
	"fmt"
	"net/netip"
	"regexp"

	"go.starlark.net/starlark"

	"orch/engine/api"
)

var objectName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}$`)

// validServiceName is the rule of engine/spec for stacks and services.
func validServiceName(name string) bool {
	if len(name) == 0 || len(name) > 63 || name[0] == '-' || name[len(name)-1] == '-' {
		return false
	}
	for i := range len(name) {
		if b := name[i]; b != '-' && (b < '0' || b > '9') && (b < 'a' || b > 'z') {
			return false
		}
	}
	return true
}

// named reads the parameter "name" of networks, volumes, secrets and configs.
func (c *call) objectName() string {
	name := c.str("name")
	if c.has("name") && name != "" && !objectName.MatchString(name) {
		c.errorf("name", "name %q: use 1 to 63 of letters, digits, '.', '_' and '-', beginning with a letter or digit", name)
	}
	return name
}

var networkFunc = &Func{
	Name:    "network",
	Doc:     "A network of the stack; services on it reach each other by name.",
	Returns: "network",
	Params: []Param{
		{Name: "name", Kind: textKind, Position: true, Doc: "Name in the stack."},
		{Name: "encrypted", Kind: boolKind, Default: "True", Doc: "Encrypt what travels between hosts."},
		{Name: "internal", Kind: boolKind, Default: "False", Doc: "No way out to other networks."},
		{Name: "subnet", Kind: textKind, Default: "None", Doc: `Addresses to use, such as "10.20.0.0/24"; None lets the runtime choose.`},
		{Name: "external", Kind: boolKind, Default: "False", Doc: "It exists already; orch neither makes nor removes it."},
		{Name: "labels", Kind: dict(scalarKind), Default: "{}", Doc: "Labels of the network."},
	},
	Elsewhere: map[string]string{"driver": "the engine chooses the driver", "attachable": "every orch network takes services of its stack only"},
	Example:   `net = network("metrics", internal = True)`,
	build: func(c *call) (starlark.Value, error) {
		n := &api.NetworkSpec{Name: c.objectName(), Encrypted: c.bool("encrypted"), Internal: c.bool("internal"),
			Subnet: c.str("subnet"), External: c.bool("external"), Labels: c.dict("labels"), Origin: c.origin()}
		if n.Subnet != "" {
			if p, err := netip.ParsePrefix(n.Subnet); err != nil || p != p.Masked() {
				c.errorf("subnet", `subnet must be a network in CIDR form such as "10.20.0.0/24", not %q`, n.Subnet)
			}
		}
		return c.made("network", n.Name, n, starlark.StringDict{"name": starlark.String(n.Name)}), nil
	},
}

var portFunc = &Func{
	Name:    "port",
	Doc:     "A port that a service listens on. Where a list of ports is wanted, an int stands for port(int).",
	Returns: "port",
	Params: []Param{
		{Name: "target", Kind: portKind_, Position: true, Doc: "Port that the program listens on."},
		{Name: "publish", Kind: portKind_, Default: "None", Doc: "Port to open on every node; None opens none."},
		{Name: "protocol", Kind: choice("tcp", "udp", "http"), Default: `"tcp"`, Doc: "What is balanced: tcp: connections. http: requests; clients' connections outlive tasks. udp: datagrams, those of a client to one task."},
		{Name: "mode", Kind: choice("ingress", "host"), Default: `"ingress"`, Doc: "ingress: every node listens and balances over the ready tasks. host: the task itself occupies the port on its node."},
		{Name: "host_ip", Kind: textKind, Default: "None", Doc: "Address to listen on; None means every address."},
		{Name: "proxy_protocol", Kind: boolKind, Default: "False", Doc: "tcp: tell the task the client's address by PROXY protocol, version 2."},
		{Name: "name", Kind: textKind, Default: "None", Doc: "A name for people."},
	},
	Example: `port(8888, publish = 80)`,
	build: func(c *call) (starlark.Value, error) {
		p := &api.PortSpec{Target: uint32(c.int("target")), Publish: uint32(c.int("publish")), Protocol: c.str("protocol"),
			Mode: c.str("mode"), HostIp: c.str("host_ip"), ProxyProtocol: c.bool("proxy_protocol"), Name: c.str("name"), Origin: c.origin()}
		if p.HostIp != "" {
			if _, err := netip.ParseAddr(p.HostIp); err != nil {
				c.errorf("host_ip", "host_ip must be an IP address, not %q", p.HostIp)
			}
		}
		if p.Mode == "host" && p.Publish == 0 {
			p.Publish = p.Target
		}
		switch {
		case !p.ProxyProtocol:
		case p.Protocol != "tcp":
			c.errorf("proxy_protocol", "proxy_protocol is for protocol \"tcp\"; tasks behind \"http\" are told by X-Forwarded-For")
		case p.Mode == "host":
			c.errorf("proxy_protocol", "proxy_protocol is for mode \"ingress\": in mode \"host\" the task sees its clients itself")
		}
		return c.made("port", fmt.Sprint(p.Target), p, starlark.StringDict{
			"target": starlark.MakeInt(int(p.Target)), "publish": intOrNone(p.Publish),
			"protocol": starlark.String(p.Protocol), "mode": starlark.String(p.Mode),
		}), nil
	},
}

// portsKind reads port() values and ints.
var portsKind = list(Kind{Name: "port or int", Stub: "port_ | int", read: func(v starlark.Value) (any, error) {
	switch v := v.(type) {
	case *Value:
		if p, ok := v.spec.(*api.PortSpec); ok {
			return p, nil
		}
	case starlark.Int:
		n, err := portKind_.read(v)
		if err != nil {
			return nil, err
		}
		return &api.PortSpec{Target: uint32(n.(int)), Protocol: "tcp", Mode: "ingress"}, nil
	case starlark.String:
		return nil, wrongHint("a port or an int", v, "write port(TARGET, publish = PORT)")
	}
	return nil, wrong("a port or an int", v)
}})

func intOrNone(n uint32) starlark.Value {
	if n == 0 {
		return starlark.None
	}
	return starlark.MakeInt(int(n))
}

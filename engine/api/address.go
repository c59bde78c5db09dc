package api

import (
	"net"
	"net/netip"
	"strconv"
)

// PortText is a published port as a sentence has it: "port 8080", or
// "10.0.0.1:53/udp".
func PortText(p *ClosedPort) string {
	text := "port " + strconv.FormatUint(uint64(p.Port), 10)
	if p.HostIp != "" {
		text = net.JoinHostPort(p.HostIp, strconv.FormatUint(uint64(p.Port), 10))
	}
	if p.Protocol == "udp" {
		text += "/udp"
	}
	return text
}

// Gateway is the address that every host has in a network: the first of its
// subnet (CIDR). "" for what is no subnet.
func Gateway(subnet string) string {
	p, err := netip.ParsePrefix(subnet)
	if err != nil {
		return ""
	}
	return p.Masked().Addr().Next().String()
}

// HardwareAddress is the one that goes with a task's IPv4 address: each host
// can tell it without asking. nil for what is no IPv4 address.
func HardwareAddress(ip net.IP) net.HardwareAddr {
	ip = ip.To4()
	if ip == nil {
		return nil
	}
	return net.HardwareAddr{0x02, 0x42, ip[0], ip[1], ip[2], ip[3]}
}

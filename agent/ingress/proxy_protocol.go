package ingress

import (
	"encoding/binary"
	"net"
	"net/netip"
)

// proxyHeader is what tells a task who connected, and to where: version 2 of
// the PROXY protocol, as HAProxy's proxy-protocol.txt has it (section 2.2).
func proxyHeader(client net.Conn) []byte {
	from, to := addrPort(client.RemoteAddr()), addrPort(client.LocalAddr())
	h := append([]byte("\r\n\r\n\x00\r\nQUIT\n"), 0x21) // version 2, command PROXY
	switch {
	case !from.IsValid() || !to.IsValid():
		return append(h, 0x00, 0, 0) // unspecified: the task takes the connection's own addresses
	case from.Addr().Is4() && to.Addr().Is4():
		h = append(h, 0x11, 0, 12) // TCP over IPv4
	default:
		h = append(h, 0x21, 0, 36) // TCP over IPv6
		from, to = netip.AddrPortFrom(netip.AddrFrom16(from.Addr().As16()), from.Port()), netip.AddrPortFrom(netip.AddrFrom16(to.Addr().As16()), to.Port())
	}
	h = append(append(h, from.Addr().AsSlice()...), to.Addr().AsSlice()...)
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(h, from.Port()), to.Port())
}

func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	p := t.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap().WithZone(""), p.Port())
}

package agent

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// ICMP, see RFC 792.
const (
	echoReply   = 0
	echoRequest = 8
	icmpHeader  = 8
	ipHeader    = 20
	nonce       = 16 // bytes that tell one echo from others
)

// ping sends an echo request and waits for its reply.
func ping(ctx context.Context, c *net.IPConn, size int) (time.Duration, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
	})
	if err != nil || failed != nil {
		return 0, failed
	}
	packet := make([]byte, max(size-ipHeader, icmpHeader+nonce))
	packet[0] = echoRequest
	rand.Read(packet[icmpHeader : icmpHeader+nonce])
	binary.BigEndian.PutUint16(packet[2:], checksum(packet))
	if deadline, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(deadline); err != nil {
			return 0, err
		}
	}
	began := time.Now()
	if _, err := c.Write(packet); err != nil {
		return 0, err
	}
	for answer := make([]byte, 1<<16); ; {
		n, _, err := c.ReadFromIP(answer) // without its IP header
		if err != nil {
			return 0, err
		}
		a := answer[:n]
		if len(a) == len(packet) && a[0] == echoReply && bytes.Equal(a[icmpHeader:], packet[icmpHeader:]) {
			return time.Since(began), nil
		}
	}
}

// checksum is that of RFC 1071.
func checksum(b []byte) uint16 {
	sum := uint32(0)
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

package agent

import (
	"net"
	"testing"
)

func TestNAT(t *testing.T) {
	own := []net.Addr{
		&net.IPNet{IP: net.ParseIP("192.168.1.2"), Mask: net.CIDRMask(24, 32)},
		&net.IPNet{IP: net.ParseIP("2001:db8::2"), Mask: net.CIDRMask(64, 128)},
	}
	for _, c := range []struct {
		seen string
		said []string
		want string
	}{
		{"192.168.1.2", []string{"10.0.0.1"}, ""},                      // another of its own than it says
		{"::ffff:192.168.1.2", nil, ""},                                // as a socket for both families has it
		{"2001:db8::2", nil, ""},                                       //
		{"203.0.113.7", []string{"192.168.1.2", "203.0.113.7"}, ""},    // a forwarded address that it was given
		{"203.0.113.7", []string{"192.168.1.2"}, "203.0.113.7"},        //
		{"::ffff:203.0.113.7", []string{"192.168.1.2"}, "203.0.113.7"}, //
		{"127.0.0.1", nil, ""},                                         // the engine of the host itself
		{"", nil, ""},                                                  // an engine that is too old to say
	} {
		if got := nat(c.seen, c.said, own); got != c.want {
			t.Errorf("seen as %q, said %v: %q, want %q", c.seen, c.said, got, c.want)
		}
	}
}

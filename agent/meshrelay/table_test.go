package meshrelay

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/blake2s"
)

// message is one of WireGuard's, as far as a relay looks at it.
func message(kind byte, size int, sender, receiver uint32, to Key) []byte {
	b := make([]byte, size)
	b[0] = kind
	switch kind {
	case initiation:
		binary.LittleEndian.PutUint32(b[4:], sender)
	case response:
		binary.LittleEndian.PutUint32(b[4:], sender)
		binary.LittleEndian.PutUint32(b[8:], receiver)
	default:
		binary.LittleEndian.PutUint32(b[4:], receiver)
		return b
	}
	mac := blake2s.Sum256(append([]byte("mac1----"), to[:]...))
	h, err := blake2s.New128(mac[:])
	if err != nil {
		panic(err)
	}
	h.Write(b[:size-2*macSize])
	copy(b[size-2*macSize:], h.Sum(nil))
	return b
}

func at(port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)
}

func TestForward(t *testing.T) {
	a, b, c, stranger := Key{1}, Key{2}, Key{3}, Key{9}
	now := time.Unix(1_000_000, 0)
	tab := newTable()
	tab.serve([]Key{a, b, c})
	step := func(what string, datagram []byte, from uint16, want ...uint16) {
		t.Helper()
		var got, wanted []string
		for _, to := range tab.forward(datagram, at(from), now) {
			got = append(got, fmt.Sprint(to.Port()))
		}
		for _, p := range want {
			wanted = append(wanted, fmt.Sprint(p))
		}
		slices.Sort(got)
		if !slices.Equal(got, wanted) {
			t.Errorf("%s: to %s, want %s", what, strings.Join(got, " "), strings.Join(wanted, " "))
		}
	}
	begin := func(index uint32, to Key) []byte { return message(initiation, initiationSize, index, 0, to) }
	answer := func(index, receiver uint32, to Key) []byte {
		return message(response, responseSize, index, receiver, to)
	}
	packet := func(receiver uint32) []byte { return message(data, dataLeast, 0, receiver, Key{}) }

	step("nobody is known yet", begin(1, b), 1001)
	step("for a node that isn't served", begin(1, stranger), 1009)
	step("the one who looks for a is a stranger", begin(2, a), 1002, 1001)
	step("and so is c, for b", begin(3, b), 1003, 1001, 1002)
	step("a answers b", answer(11, 2, b), 1001, 1002)
	step("b's packet", packet(11), 1002, 1001)
	step("a's packet", packet(2), 1001, 1002)
	step("b is known now, c isn't", begin(4, b), 1001, 1002, 1003)
	step("to c, who alone is a stranger", begin(5, c), 1002, 1003)
	step("an answer to nothing", answer(99, 98, a), 1002)
	step("an answer for one who isn't served", answer(99, 4, stranger), 1002)
	step("somebody else begins with an index that is in use", begin(11, b), 1009)
	step("somebody else answers with one", answer(2, 4, a), 1009)
	step("no session", packet(77), 1002)
	step("a cookie", message(cookie, cookieSize, 0, 11, Key{}), 1002, 1001)
	step("too short", packet(11)[:dataLeast-1], 1002)
	step("no message", []byte(strings.Repeat("x", 40)), 1002)
	step("c answers", answer(13, 5, b), 1003, 1002)

	// a moves: it begins again, and is found again.
	step("a from elsewhere", begin(21, b), 1011, 1002)
	step("b answers it", answer(22, 21, a), 1002, 1011)
	step("b to a", begin(23, a), 1002, 1011)

	now = now.Add(flowFor / 2)
	step("still known", packet(22), 1011, 1002)
	now = now.Add(flowFor/2 + strangerFor)
	step("used since", packet(22), 1011, 1002)
	step("not used since", packet(11), 1002)
	tab.serve([]Key{a, c})
	step("b isn't served any more", begin(31, b), 1011)
	step("nor has it a session with a", packet(22), 1011)
	step("nor a with it", packet(21), 1002)
}

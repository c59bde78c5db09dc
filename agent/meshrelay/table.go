package meshrelay

import (
	"encoding/binary"
	"net/netip"
	"time"

	"golang.org/x/crypto/blake2s"
)

// Key is a node's public key.
type Key [32]byte

// WireGuard's messages, by its paper (section 5.4) and protocol page: a type in four
// bytes, indexes by which each side knows its session, little-endian, and in those
// of a handshake a MAC (mac1) by the public key of whom it is for.
const (
	initiation, initiationSize = 1, 148 // sender's index at 4
	response, responseSize     = 2, 92  // sender's at 4, receiver's at 8
	cookie, cookieSize         = 3, 64  // receiver's at 4
	data, dataLeast            = 4, 32  // receiver's at 4
	macSize                    = 16     // mac1 is before mac2, which ends the message
)

const (
	// strangerFor who begins a handshake may be the one that another looks for.
	strangerFor = time.Minute
	// flowFor an index is known without a packet for it: WireGuard gives one up
	// after three minutes.
	flowFor = 4 * time.Minute
	// at most so many are kept.
	mostStrangers = 256
	mostFlows     = 1 << 16
)

// flow is one side of a session, by the index that this side gave it.
type flow struct {
	at        netip.AddrPort // where the side is
	with      Key            // the other side
	confirmed bool           // the other side has answered
	used      time.Time
}

// table says where a datagram goes. It is not safe for concurrent use.
type table struct {
	macs      map[Key][32]byte // key of mac1, of those that are served
	flows     map[uint32]*flow
	at        map[Key]netip.AddrPort       // where those are who have answered
	who       map[netip.AddrPort]Key       // the same
	strangers map[netip.AddrPort]time.Time // who else has begun a handshake, and when
	swept     time.Time
}

func newTable() *table {
	return &table{macs: map[Key][32]byte{}, flows: map[uint32]*flow{}, at: map[Key]netip.AddrPort{}, who: map[netip.AddrPort]Key{}, strangers: map[netip.AddrPort]time.Time{}}
}

// serve replaces the nodes that are served.
func (t *table) serve(keys []Key) {
	macs := make(map[Key][32]byte, len(keys))
	for _, k := range keys {
		macs[k] = blake2s.Sum256(append([]byte("mac1----"), k[:]...))
	}
	t.macs = macs
	served := func(k Key) bool { _, is := macs[k]; return is }
	for i, f := range t.flows {
		if side, known := t.who[f.at]; !served(f.with) || known && !served(side) {
			delete(t.flows, i)
		}
	}
	for k, at := range t.at {
		if !served(k) {
			delete(t.at, k)
			delete(t.who, at)
		}
	}
}

// forward says where a datagram goes on to; nowhere if it is for nobody served.
// A node is only known once it has answered a handshake: until then what begins
// one goes to all who begin one themselves, of whom the others don't understand
// it.
func (t *table) forward(b []byte, from netip.AddrPort, now time.Time) []netip.AddrPort {
	t.sweep(now)
	if len(b) < dataLeast || b[1]|b[2]|b[3] != 0 {
		return nil
	}
	index := binary.LittleEndian.Uint32(b[4:])
	switch kind := b[0]; {
	case kind == initiation && len(b) == initiationSize:
		return t.begin(b, index, from, now)
	case kind == response && len(b) == responseSize:
		return t.answer(b, index, from, now)
	case kind == cookie && len(b) == cookieSize, kind == data:
		if f := t.flows[index]; f != nil {
			f.used = now
			return []netip.AddrPort{f.at}
		}
	}
	return nil
}

func (t *table) begin(b []byte, index uint32, from netip.AddrPort, now time.Time) (to []netip.AddrPort) {
	with, ok := t.receiver(b)
	old := t.flows[index]
	if !ok || old == nil && len(t.flows) >= mostFlows || old != nil && old.confirmed && old.at != from {
		return nil
	}
	t.flows[index] = &flow{at: from, with: with, used: now}
	if at, known := t.at[with]; known && at != from {
		to = append(to, at)
	}
	for at := range t.strangers {
		if at != from {
			to = append(to, at)
		}
	}
	if _, known := t.who[from]; !known && len(t.strangers) < mostStrangers {
		t.strangers[from] = now
	}
	return to
}

func (t *table) answer(b []byte, index uint32, from netip.AddrPort, now time.Time) []netip.AddrPort {
	begun := t.flows[binary.LittleEndian.Uint32(b[8:])]
	with, ok := t.receiver(b)
	if begun == nil || !ok {
		return nil
	}
	if old := t.flows[index]; old != nil && old.confirmed && old.at != from {
		return nil
	}
	begun.confirmed, begun.used = true, now
	t.flows[index] = &flow{at: from, with: with, confirmed: true, used: now}
	t.know(begun.with, from)
	t.know(with, begun.at)
	return []netip.AddrPort{begun.at}
}

// know says where a node is.
func (t *table) know(k Key, at netip.AddrPort) {
	delete(t.who, t.at[k])
	if before, other := t.who[at]; other {
		delete(t.at, before)
	}
	t.at[k], t.who[at] = at, k
	delete(t.strangers, at)
}

// receiver is the node that a handshake's message is for.
func (t *table) receiver(b []byte) (Key, bool) {
	end := len(b) - 2*macSize
	for k, mac := range t.macs {
		h, err := blake2s.New128(mac[:])
		if err != nil {
			panic(err) // the key's length is right
		}
		h.Write(b[:end])
		if [macSize]byte(h.Sum(nil)) == [macSize]byte(b[end:]) {
			return k, true
		}
	}
	return Key{}, false
}

// sweep forgets what is old.
func (t *table) sweep(now time.Time) {
	if now.Sub(t.swept) < strangerFor/4 {
		return
	}
	t.swept = now
	for at, since := range t.strangers {
		if now.Sub(since) > strangerFor {
			delete(t.strangers, at)
		}
	}
	for i, f := range t.flows {
		if now.Sub(f.used) > flowFor {
			delete(t.flows, i)
		}
	}
}

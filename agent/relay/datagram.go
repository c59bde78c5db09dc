package relay

import (
	"encoding/binary"
	"io"
	"net"
	"net/http"
)

// Datagrams go through a stream one after the other, each with its length
// before it: two bytes, big-endian.

const mostDatagram = 65535

func writeDatagram(w io.Writer, b []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(b)), uint16(len(b))), b...))
	return err
}

// readDatagram reads one into b, which holds any.
func readDatagram(r io.Reader, b []byte) (int, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, err
	}
	n := int(binary.BigEndian.Uint16(head[:]))
	return io.ReadFull(r, b[:n])
}

// datagrams passes them on both ways until the other end has no more.
func datagrams(w http.ResponseWriter, r *http.Request, control *http.ResponseController, c net.Conn) {
	back := make(chan struct{})
	go func() { // ends with c
		defer close(back)
		b := make([]byte, mostDatagram)
		for {
			n, err := c.Read(b)
			if err != nil && n == 0 {
				return
			}
			if writeDatagram(pieces{w, control}, b[:n]) != nil {
				return
			}
		}
	}()
	b := make([]byte, mostDatagram)
	for {
		n, err := readDatagram(r.Body, b)
		if err != nil {
			break
		}
		_, _ = c.Write(b[:n]) // lost, as any datagram may be
	}
	c.Close()
	<-back
}

// datagramConn is a stream of them as a connection: each Write is one, each
// Read is one.
type datagramConn struct{ *conn }

func (d datagramConn) Read(b []byte) (int, error) {
	whole := b
	if len(whole) < mostDatagram {
		whole = make([]byte, mostDatagram)
	}
	n, err := readDatagram(d.conn, whole)
	if err != nil {
		return 0, err
	}
	return copy(b, whole[:n]), nil
}

func (d datagramConn) Write(b []byte) (int, error) {
	if err := writeDatagram(d.conn, b); err != nil {
		return 0, err
	}
	return len(b), nil
}

package ingress

import (
	"errors"
	"io"
	"net"
	"sync"

	"golang.org/x/sys/unix"
)

// Copying holds nothing while a connection is idle: no buffer, and no pipe as
// the kernel's splicing would. What comes in bulk is spliced.

const (
	chunk = 32 << 10 // bytes read at once
	small = 2 << 10  // by what can't be waited for without a buffer
	// bulk begins after so many full chunks in a row, and is spliced by so many
	// bytes before it is looked at again.
	bulkAfter = 8
	bulk      = 4 << 20
)

var chunks = sync.Pool{New: func() any { return new([chunk]byte) }}

// pour copies all that comes from one connection to the other.
func pour(to, from net.Conn) error {
	if src, ok := from.(*net.TCPConn); ok {
		return pourTCP(to, src)
	}
	little := make([]byte, small)
	for {
		n, err := from.Read(little)
		if n == small { // there is more: in larger pieces, as long as they come
			if _, broken := to.Write(little); broken != nil {
				return broken
			}
			for big := chunks.Get().(*[chunk]byte); ; {
				n, err = from.Read(big[:])
				if n > 0 {
					if _, broken := to.Write(big[:n]); broken != nil {
						chunks.Put(big)
						return broken
					}
				}
				if err != nil || n < chunk/2 {
					chunks.Put(big)
					break
				}
			}
			n = 0
		}
		if n > 0 {
			if _, broken := to.Write(little[:n]); broken != nil {
				return broken
			}
		}
		if err != nil {
			return noEnd(err)
		}
	}
}

func noEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func pourTCP(to net.Conn, from *net.TCPConn) error {
	raw, err := from.SyscallConn()
	if err != nil {
		return err
	}
	full := 0
	for {
		b, n, err := next(raw)
		if err != nil || n == 0 {
			return err
		}
		_, err = to.Write(b[:n])
		chunks.Put(b)
		if err != nil {
			return err
		}
		if full++; n < chunk {
			full = 0
		}
		if dst, ok := to.(*net.TCPConn); ok && full == bulkAfter {
			full = 0
			if n, err := dst.ReadFrom(io.LimitReader(from, bulk)); err != nil || n < bulk {
				return err
			}
		}
	}
}

// next waits for what comes and reads it into a buffer of chunks; 0 bytes are the
// end, and have none.
func next(raw interface {
	Read(func(uintptr) bool) error
}) (b *[chunk]byte, n int, err error) {
	broken := raw.Read(func(fd uintptr) bool {
		b = chunks.Get().(*[chunk]byte)
		for {
			n, err = unix.Read(int(fd), b[:])
			if err != unix.EINTR {
				break
			}
		}
		if n > 0 {
			return true
		}
		chunks.Put(b)
		b, n = nil, 0
		if err == unix.EAGAIN {
			return false // until there is something
		}
		return true
	})
	if broken != nil {
		return nil, 0, broken
	}
	if err != nil {
		return nil, 0, err
	}
	return b, n, nil
}

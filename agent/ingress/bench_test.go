package ingress

import (
	"bufio"
	"net"
	"net/http"
	"sync"
	"testing"
)

// answering is a task that answers every request alike, as cheaply as can be.
func answering(b *testing.B) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	var work sync.WaitGroup
	work.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			work.Go(func() {
				defer c.Close()
				in := bufio.NewReader(c)
				for {
					line, err := in.ReadSlice('\n')
					if err != nil {
						return
					}
					if len(line) == 2 {
						if _, err := c.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")); err != nil {
							return
						}
					}
				}
			})
		}
	})
	b.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// BenchmarkRequests is a small request by protocol, on connections that are
// kept, sixteen at a time; the client and the task are part of it.
func BenchmarkRequests(b *testing.B) {
	for _, protocol := range []string{"tcp", "http"} {
		b.Run(protocol, func(b *testing.B) {
			p, at := start(b), free(b)
			r := on(at, to(answering(b))...)
			r.Protocol = protocol
			dialable(b, p, r)
			const clients = 16
			var work sync.WaitGroup
			b.ResetTimer()
			for range clients {
				work.Go(func() {
					c, err := net.Dial("tcp", at)
					if err != nil {
						b.Error(err)
						return
					}
					defer c.Close()
					in := bufio.NewReader(c)
					for range b.N/clients + 1 {
						_, err := c.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
						if err == nil {
							var a *http.Response
							if a, err = http.ReadResponse(in, nil); err == nil {
								_, err = in.Discard(2)
								_ = a
							}
						}
						if err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			work.Wait()
		})
	}
}

package main

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// capture counts frames on a link until its input ends, and says how many there
// were and how many of them hold the pattern.
func capture(link, pattern string) {
	l, err := net.InterfaceByName(link)
	if err != nil {
		log.Fatal(err)
	}
	every := uint16(unix.ETH_P_ALL)<<8 | uint16(unix.ETH_P_ALL)>>8
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, int(every))
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: every, Ifindex: l.Index})
	}
	if err == nil {
		err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: int64(100 * time.Millisecond / time.Microsecond)})
	}
	if err != nil {
		log.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(ended)
	}()
	fmt.Println("ready")
	all, with := 0, 0
	for frame := make([]byte, 1<<16); ; {
		n, _, err := unix.Recvfrom(fd, frame, 0)
		if err == nil {
			all++
			if bytes.Contains(frame[:n], []byte(pattern)) {
				with++
			}
			continue
		}
		select {
		case <-ended:
			fmt.Println(all, with)
			return
		default:
		}
	}
}

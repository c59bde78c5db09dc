package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// client is the Transport of Go's own SSH client: a chain of connections, each
// through the one before.
type client struct {
	chain []*ssh.Client
	print string
	stop  []context.CancelFunc
	alive sync.WaitGroup
}

func (c *client) last() *ssh.Client {
	if len(c.chain) == 0 {
		return nil
	}
	return c.chain[len(c.chain)-1]
}

func (c *client) add(next *ssh.Client, alive time.Duration, print string) {
	c.chain = append(c.chain, next)
	c.print = print
	if alive > 0 {
		ctx, cancel := context.WithCancel(context.Background())
		c.stop = append(c.stop, cancel)
		c.alive.Go(func() { keepAlive(ctx, next, alive) })
	}
}

// keepAlive asks the server for a sign of life, and closes the connection when
// three are missing.
func keepAlive(ctx context.Context, c *ssh.Client, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	answered := make(chan bool, 3)
	open := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-answered:
			open = 0
		case <-tick.C:
			if open++; open > 3 {
				c.Close()
				return
			}
			go func() { // ends with the answer, or with the connection
				_, _, err := c.SendRequest("keepalive@openssh.com", true, nil)
				if err == nil {
					select {
					case answered <- true:
					default:
					}
				}
			}()
		}
	}
}

func (c *client) Run(ctx context.Context, command string, stdin io.Reader, stdout, stderr io.Writer) (int, error) {
	s, err := c.last().NewSession()
	if err != nil {
		return 0, fmt.Errorf("the SSH connection is lost: %w", err)
	}
	defer s.Close()
	s.Stdout, s.Stderr = stdout, stderr
	in, err := s.StdinPipe()
	if err != nil {
		return 0, err
	}
	if err := s.Start(command); err != nil {
		return 0, fmt.Errorf("the SSH server does not run commands: %w", err)
	}
	// The command may end without reading all: what is left is not waited for.
	go func() {
		if stdin != nil {
			io.Copy(in, stdin)
		}
		in.Close()
	}()
	stop := context.AfterFunc(ctx, func() {
		s.Signal(ssh.SIGTERM)
		s.Close()
	})
	defer stop()
	err = s.Wait()
	var exit *ssh.ExitError
	switch {
	case ctx.Err() != nil:
		return 0, ctx.Err()
	case err == nil:
		return 0, nil
	case errors.As(err, &exit):
		return max(exit.ExitStatus(), 1), nil
	}
	return 0, fmt.Errorf("the SSH connection broke: %w", err)
}

func (c *client) Dial(ctx context.Context, address string) (net.Conn, error) {
	return c.last().DialContext(ctx, "tcp", address)
}

func (c *client) HostKey() string { return c.print }

func (c *client) Close() error {
	for _, stop := range c.stop {
		stop()
	}
	for i := len(c.chain) - 1; i >= 0; i-- {
		c.chain[i].Close()
	}
	c.alive.Wait()
	return nil
}

package bootstrap

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"orch/engine/api"
)

// cluster is a way to ask the cluster: through the socket of an engine among
// the hosts, over SSH. It waits until one has a leader.
func (r *run) cluster(ctx context.Context, patience time.Duration) (Cluster, error) {
	r.mu.Lock()
	door := r.door
	r.mu.Unlock()
	if door != nil {
		return door, nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	last := errors.New("none of the hosts is a running engine; with --join CONTEXT another one is asked")
	err := poll(ctx, func() (bool, error) {
		for _, s := range r.all {
			if s.shell == nil || s.Role != "engine" {
				continue
			}
			c := r.Connect(func(ctx context.Context) (net.Conn, error) { return r.socket(ctx, s) })
			info, err := c.Info(ctx)
			switch {
			case err != nil:
				last = fmt.Errorf("engine %s: %w", s, err)
			case info.Leader == "":
				last = fmt.Errorf("engine %s knows no leader%s", s, colon(info.Reason))
			default:
				r.mu.Lock()
				r.door = c
				r.mu.Unlock()
				door = c
				return true, nil
			}
		}
		return false, nil
	})
	if err != nil {
		return nil, fmt.Errorf("the cluster does not answer: %w", last)
	}
	return door, nil
}

// poll calls try until it says true, an error or ctx ends.
func poll(ctx context.Context, try func() (bool, error)) error {
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	for {
		if done, err := try(); done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// socket connects to the socket of a host's daemon. The connection ends with
// the host's.
func (r *run) socket(_ context.Context, s *Seen) (net.Conn, error) {
	here, there := net.Pipe()
	go func() {
		var said bytes.Buffer
		script := "exec " + r.binary() + " host stdio --dir " + r.DataDir
		_, _, err := s.shell.run(context.Background(), script, there, there)
		if err != nil {
			fmt.Fprint(&said, err)
		}
		there.Close()
	}()
	return here, nil
}

// operator has a certificate signed by the cluster, as root on an engine.
func (r *run) operator(ctx context.Context, good []*Seen, name string, csr []byte) (*api.OperatorCredentials, error) {
	last := errors.New("no engine is among the hosts")
	for _, s := range good {
		if s.Role != "engine" || r.failed[s.Host] != nil {
			continue
		}
		out, err := s.shell.output(ctx, r.binary()+` host operator --dir "$1" --name "$2" --role admin`,
			bytes.NewReader([]byte(base64.StdEncoding.EncodeToString(csr))), r.DataDir, name)
		if err != nil {
			last = fmt.Errorf("on %s: %w", s, err)
			continue
		}
		creds := &api.OperatorCredentials{}
		if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal([]byte(out), creds); err != nil {
			return nil, err
		}
		return creds, nil
	}
	return nil, last
}

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"connectrpc.com/connect"

	"orch/engine/api"
)

// watch shows a stack's progress until it has converged, has failed, or the
// time is up.
func watch(ctx context.Context, client clusterClient, stack string, timeout time.Duration, show *progress) error {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	statuses := make(chan *api.StackStatus)
	ended := make(chan error, 1)
	within, stop := context.WithCancel(ctx)
	defer stop()
	go func() { // ends with within, or with the stack
		defer close(statuses)
		ended <- statusesOf(within, client, stack, statuses)
	}()
	var last *api.StackStatus
	var proven <-chan time.Time // when a converged stack has stayed so
	again := time.NewTicker(time.Second)
	defer again.Stop()
	for open := true; open; {
		select {
		case <-proven:
			show.end(last, true)
			return nil
		case <-again.C: // what has been so for a while is told, too
			if last != nil {
				show.again(last)
			}
		case s, ok := <-statuses:
			if open = ok; !ok {
				continue
			}
			last = s
			show.status(s)
			switch {
			case s.Failed:
				show.end(s, false)
				return &exitError{1, reasons(s, "orch: stack "+stack+" did not converge:")}
			case !s.Converged:
				proven = nil
			case checked(s):
				show.end(s, true)
				return nil
			case proven == nil:
				proven = time.After(provenAfter)
			}
		}
	}
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded) && last != nil:
		show.end(last, false)
		return &exitError{1, reasons(last, fmt.Sprintf("orch: stack %s did not converge within %s:", stack, timeout))}
	case ctx.Err() != nil && last != nil && last.Outcome == "":
		return &unwatched{last}
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return <-ended
}

// unwatched is what a watch ends with that was interrupted.
type unwatched struct{ last *api.StackStatus }

func (u *unwatched) Error() string {
	return fmt.Sprintf("stopped waiting: release %d of stack %s goes on in the cluster; `orch ps %s` and `orch rollout ls` show how it is", u.last.Release, u.last.Stack, u.last.Stack)
}

func (u *unwatched) Unwrap() error { return context.Canceled }

// followAgain is how long a stream of statuses may be broken, as when the
// engine that leads is lost.
const followAgain = 20 * time.Second

// hostAgain is how long the daemon of this host may be gone, as when it is
// begun anew.
const hostAgain = 2 * time.Second

// statusesOf passes a stack's statuses on, over the loss of an engine.
func statusesOf(ctx context.Context, client clusterClient, stack string, to chan<- *api.StackStatus) error {
	return streamed(ctx, func(ctx context.Context) (*connect.ServerStreamForClient[api.StackStatus], error) {
		return client.WatchStack(ctx, connect.NewRequest(&api.WatchStackRequest{Stack: stack}))
	}, to)
}

// streamed passes on what a stream brings, over the loss of an engine.
func streamed[T any](ctx context.Context, open func(context.Context) (*connect.ServerStreamForClient[T], error), to chan<- *T) error {
	var lost time.Time
	for {
		stream, err := open(ctx)
		if err == nil {
			for stream.Receive() {
				lost = time.Time{}
				select {
				case to <- stream.Msg():
				case <-ctx.Done():
					return errors.Join(ctx.Err(), stream.Close())
				}
			}
			err = stream.Err()
			stream.Close()
		}
		if err == nil || ctx.Err() != nil || connect.CodeOf(err) == connect.CodeNotFound || connect.CodeOf(err) == connect.CodePermissionDenied {
			return err
		}
		if lost.IsZero() {
			lost = time.Now()
		}
		gone := time.Since(lost)
		var op *net.OpError
		if gone > followAgain || gone > hostAgain && errors.As(err, &op) && op.Net == "unix" {
			return err
		}
		again := time.NewTimer(200 * time.Millisecond)
		select {
		case <-ctx.Done():
		case <-again.C:
		}
		again.Stop()
	}
}

// provenAfter is how long a stack must stay converged if not all of its
// services have a readiness check: what fails at once has never converged.
const provenAfter = time.Second

// checked says that every service of the stack that runs has a readiness check.
func checked(s *api.StackStatus) bool {
	for _, svc := range s.Services {
		if !svc.Checked && svc.State == "running" && svc.Want > 0 {
			return false
		}
	}
	return true
}

func reasons(s *api.StackStatus, head string) string {
	lines := []string{head}
	switch s.Outcome {
	case "rolled_back":
		return fmt.Sprintf("orch: release %d of stack %s was taken back, all runs as before: %s", s.Release, s.Stack, s.Reason)
	case "paused", "failed":
		lines = append(lines, fmt.Sprintf("  release %d is %s: %s", s.Release, s.Outcome, s.Reason))
	}
	for _, svc := range s.Services {
		if !svc.Converged {
			lines = append(lines, fmt.Sprintf("  %s: %s, %d of %d ready: %s", svc.Name, svc.State, svc.Ready, svc.Want, svc.Reason))
		}
	}
	return strings.Join(lines, "\n")
}

// stopStacks stops every stack and waits until no task of them runs.
func stopStacks(ctx context.Context, client clusterClient) error {
	list, err := client.ListStacks(ctx, connect.NewRequest(&api.ListStacksRequest{}))
	if err != nil {
		return err
	}
	for _, s := range list.Msg.Stacks {
		if s.Stopped || s.Removed {
			continue
		}
		if _, err := client.SetStack(ctx, connect.NewRequest(&api.SetStackRequest{Name: s.Stack, Action: "stop"})); err != nil {
			return err
		}
	}
	for _, s := range list.Msg.Stacks {
		if err := stopped(ctx, client, s.Stack); err != nil {
			return err
		}
	}
	return nil
}

func stopped(ctx context.Context, client clusterClient, stack string) error {
	stream, err := client.WatchStack(ctx, connect.NewRequest(&api.WatchStackRequest{Stack: stack}))
	if err != nil {
		return err
	}
	defer stream.Close()
	for stream.Receive() {
		if stream.Msg().Converged {
			return nil
		}
	}
	if connect.CodeOf(stream.Err()) == connect.CodeNotFound {
		return nil
	}
	return stream.Err()
}

// Package session keeps an agent in touch with the engine that leads: it
// says hello, takes assignments, reports statuses and sends heartbeats, and
// begins anew, with a growing pause, whenever the connection ends. Tasks
// don't notice.
package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"connectrpc.com/connect"

	"orch/engine/api"
	"orch/engine/api/apiconnect"
)

// Worker does what the engine says.
type Worker interface {
	Assign(*api.Assignments)
	Statuses() []*api.TaskStatus
	All() []*api.TaskStatus
	Changed() <-chan struct{}
	Logs(context.Context, *api.LogRequest, func(*api.LogBatch) error) error
}

// Config of a session.
type Config struct {
	NodeID, Name string
	Client       *http.Client // with the agent's certificate, HTTP/2
	URL          string       // of the engine
	Worker       Worker
	Facts        func(context.Context) *api.NodeFacts
	Logger       *slog.Logger
}

const (
	firstPause = 50 * time.Millisecond
	mostPause  = 2 * time.Second

	welcomeWithin = 10 * time.Second
)

// Run keeps a session until ctx ends.
func Run(ctx context.Context, c Config) error {
	s := &keeper{Config: c, client: apiconnect.NewAgentServiceClient(c.Client, c.URL, connect.WithGRPC())}
	pause, said := firstPause, ""
	for ctx.Err() == nil {
		began := time.Now()
		err := s.once(ctx)
		if ctx.Err() != nil {
			break
		}
		if time.Since(began) > mostPause {
			pause = firstPause
		}
		// A reason that stays is told once.
		level := slog.LevelDebug
		if text := err.Error(); text != said && connect.CodeOf(err) != connect.CodeUnavailable {
			level, said = slog.LevelWarn, text
		}
		s.Logger.Log(ctx, level, "the session with the engine ended; the agent tries again", "error", err)
		wait := time.NewTimer(pause/2 + rand.N(pause))
		select {
		case <-ctx.Done():
		case <-wait.C:
		}
		wait.Stop()
		pause = min(2*pause, mostPause)
	}
	return ctx.Err()
}

type keeper struct {
	Config
	client apiconnect.AgentServiceClient
}

func (s *keeper) once(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream := s.client.Session(ctx)
	// A context alone ends no call whose request is still being written.
	context.AfterFunc(ctx, func() {
		_ = stream.CloseRequest()
		_ = stream.CloseResponse()
	})
	hello := &api.Hello{NodeId: s.NodeID, Name: s.Name, Facts: s.Facts(ctx), Running: s.Worker.All()}
	if err := stream.Send(&api.AgentMessage{Kind: &api.AgentMessage_Hello{Hello: hello}}); err != nil {
		return end(stream, err)
	}
	late := time.AfterFunc(welcomeWithin, cancel)
	first, err := stream.Receive()
	if !late.Stop() {
		return fmt.Errorf("the engine did not answer a hello within %s", welcomeWithin)
	}
	if err != nil {
		return err
	}
	welcome := first.GetWelcome()
	if welcome.GetHeartbeat().AsDuration() <= 0 {
		return errors.New("the engine did not welcome this agent")
	}
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	received := make(chan error, 1)
	work.Go(func() { received <- s.receive(ctx, stream, &work) })
	return s.send(ctx, stream, welcome.Heartbeat.AsDuration(), received)
}

// end gets the server's reason for a failed send.
func end(stream *connect.BidiStreamForClient[api.AgentMessage, api.EngineMessage], err error) error {
	if errors.Is(err, io.EOF) {
		_, err = stream.Receive()
	}
	return err
}

// factsEvery often the agent looks whether its runtimes can be used.
const factsEvery = 10 * time.Second

func (s *keeper) send(ctx context.Context, stream *connect.BidiStreamForClient[api.AgentMessage, api.EngineMessage], every time.Duration, received <-chan error) error {
	beat := time.NewTimer(every)
	defer beat.Stop()
	facts := time.NewTicker(factsEvery)
	defer facts.Stop()
	known := ""
	for {
		var m *api.AgentMessage
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-received:
			return err
		case <-beat.C:
			m = &api.AgentMessage{Kind: &api.AgentMessage_Heartbeat{Heartbeat: &api.Heartbeat{}}}
			// Jitter keeps thousands of agents from speaking at once.
			beat.Reset(every - every/10 + rand.N(every/5))
		case <-facts.C:
			f := s.Facts(ctx)
			now := runtimes(f)
			if known != "" && known != now {
				m = &api.AgentMessage{Kind: &api.AgentMessage_Facts{Facts: f}}
			}
			if known = now; m == nil {
				continue
			}
		case <-s.Worker.Changed():
			statuses := s.Worker.Statuses()
			if len(statuses) == 0 {
				continue
			}
			m = &api.AgentMessage{Kind: &api.AgentMessage_Report{Report: &api.ReportStatus{Statuses: statuses}}}
		}
		if err := stream.Send(m); err != nil {
			return end(stream, err)
		}
	}
}

func runtimes(f *api.NodeFacts) string {
	text := "known:"
	for _, r := range f.Runtimes {
		text += r.Name + "=" + r.Version + "!" + r.Error + ";"
	}
	return text
}

func (s *keeper) receive(ctx context.Context, stream *connect.BidiStreamForClient[api.AgentMessage, api.EngineMessage], work *sync.WaitGroup) error {
	logs := map[string]context.CancelFunc{}
	for {
		m, err := stream.Receive()
		if err != nil {
			return err
		}
		switch k := m.Kind.(type) {
		case *api.EngineMessage_Assignments:
			s.Worker.Assign(k.Assignments)
		case *api.EngineMessage_Logs:
			ctx, cancel := context.WithCancel(ctx)
			logs[k.Logs.Subscription] = cancel
			work.Go(func() {
				defer cancel()
				s.publish(ctx, k.Logs)
			})
		case *api.EngineMessage_LogCancel:
			if cancel := logs[k.LogCancel.Subscription]; cancel != nil {
				cancel()
				delete(logs, k.LogCancel.Subscription)
			}
		}
	}
}

func (s *keeper) publish(ctx context.Context, ask *api.LogRequest) {
	stream := s.client.PublishLogs(ctx)
	err := s.Worker.Logs(ctx, ask, stream.Send)
	if _, closeErr := stream.CloseAndReceive(); err == nil {
		err = closeErr
	}
	if err != nil && ctx.Err() == nil && !errors.Is(err, io.EOF) {
		s.Logger.Debug("cannot publish logs", "error", err)
	}
}

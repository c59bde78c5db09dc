// Package session keeps an agent in touch with the engine that leads: it
// says hello, takes assignments, runs commands in tasks, reports statuses and sends
// heartbeats, and begins anew, with a growing pause, whenever the connection
// ends or falls silent. Any engine it knows tells it which one leads. Tasks
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
	"google.golang.org/protobuf/proto"

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
	// Exec runs a command in a task until it or ctx ends.
	Exec(ctx context.Context, task string, command []string) (exit int, output string, err error)
}

// Network follows the endpoint table.
type Network interface {
	Follow(*api.Endpoints)
	Followed() *api.Followed
	Changed() <-chan struct{} // Followed may say something else
}

// Config of a session.
type Config struct {
	NodeID, Name string
	Client       *http.Client    // with the agent's certificate, HTTP/2
	Engines      func() []string // host:port of those that are known
	Worker       Worker
	Network      Network // nil: the endpoint table isn't followed
	// Answer, if set, answers questions about the node's data plane.
	Answer func(context.Context, *api.Ask) *api.Answer
	// Facts answers at once, from what is known. FactsChanged, if set, has a
	// value when the answer may be another.
	Facts        func(context.Context) *api.NodeFacts
	FactsChanged <-chan struct{}
	// Membership, if set, is told what the engine says of the cluster.
	Membership func(*api.Membership)
	// Observed, if set, is told which address the engine sees this host by.
	Observed func(address string)
	// Refused, if set, is told why the cluster doesn't want this node, see
	// api.ReasonHeader.
	Refused func(reason string)
	Logger  *slog.Logger
}

const (
	firstPause = 50 * time.Millisecond
	mostPause  = 2 * time.Second

	// welcomeWithin an engine has to answer: one whose host is cut off never
	// does.
	welcomeWithin = 3 * time.Second
)

// Run keeps a session until ctx ends.
func Run(ctx context.Context, c Config) error {
	s := &keeper{Config: c}
	pause, said := firstPause, ""
	for ctx.Err() == nil {
		began := time.Now()
		err := s.once(ctx, s.next())
		if ctx.Err() != nil {
			break
		}
		if time.Since(began) > mostPause {
			pause = firstPause
		}
		s.learn(err)
		// The next one begins with the certificate of now.
		s.Client.CloseIdleConnections()
		if s.leader != "" && !s.hinted {
			continue // now it is known whom to ask
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
	client apiconnect.AgentServiceClient // of the engine that is asked
	leader string                        // said to lead; empty: unknown
	turn   int                           // of the engines, when none is said to lead
	asked  string                        // last
	hinted bool                          // asked because it was said to lead
}

// next is the engine to ask: the one that is said to lead, else one after
// the other.
func (s *keeper) next() string {
	address := s.leader
	s.leader, s.hinted = "", address != ""
	if address == "" {
		if all := s.Engines(); len(all) > 0 {
			address = all[s.turn%len(all)]
			s.turn++
		}
	}
	s.asked = address
	return address
}

// learn takes from an engine's error what it says of the cluster.
func (s *keeper) learn(err error) {
	var refused *connect.Error
	if !errors.As(err, &refused) {
		return
	}
	if leader := refused.Meta().Get(api.LeaderHeader); leader != s.asked {
		s.leader = leader
	}
	if reason := refused.Meta().Get(api.ReasonHeader); reason != "" && s.Refused != nil {
		s.Refused(reason)
	}
}

func (s *keeper) once(ctx context.Context, engine string) error {
	if engine == "" {
		return errors.New("no engine's address is known")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.client = apiconnect.NewAgentServiceClient(s.Client, "https://"+engine, connect.WithGRPC())
	stream := s.client.Session(ctx)
	// A context alone ends no call whose request is still being written.
	context.AfterFunc(ctx, func() {
		_ = stream.CloseRequest()
		_ = stream.CloseResponse()
	})
	facts := s.Facts(ctx)
	hello := &api.Hello{NodeId: s.NodeID, Name: s.Name, Facts: facts, Running: s.Worker.All(), Follows: s.Network != nil}
	late := time.AfterFunc(welcomeWithin, cancel)
	if err := stream.Send(&api.AgentMessage{Kind: &api.AgentMessage_Hello{Hello: hello}}); err != nil {
		late.Stop()
		return end(stream, err)
	}
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
	if s.Observed != nil {
		s.Observed(welcome.Observed)
	}
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	every := welcome.Heartbeat.AsDuration()
	silence := time.AfterFunc(silent(every), cancel)
	defer silence.Stop()
	received, answers := make(chan error, 1), make(chan *api.Answer)
	commands := &commands{run: s.Worker.Exec, room: make(chan struct{}, atOnce), results: make(chan *api.ExecResult)}
	work.Go(func() {
		received <- s.receive(ctx, stream, &work, commands, answers, func() { silence.Reset(silent(every)) })
	})
	err = s.send(ctx, stream, every, facts, received, commands.results, answers)
	if ctx.Err() != nil {
		err = errors.New("the engine fell silent")
	}
	return err
}

// silent is how long an engine may say nothing.
func silent(heartbeat time.Duration) time.Duration { return 2*heartbeat + 200*time.Millisecond }

// end gets the server's reason for a failed send.
func end(stream *connect.BidiStreamForClient[api.AgentMessage, api.EngineMessage], err error) error {
	if errors.Is(err, io.EOF) {
		_, err = stream.Receive()
	}
	return err
}

func (s *keeper) send(ctx context.Context, stream *connect.BidiStreamForClient[api.AgentMessage, api.EngineMessage], every time.Duration, known *api.NodeFacts, received <-chan error, results <-chan *api.ExecResult, answers <-chan *api.Answer) error {
	beat := time.NewTimer(every)
	defer beat.Stop()
	var followed <-chan struct{}
	if s.Network != nil {
		followed = s.Network.Changed()
	}
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
		case <-s.FactsChanged:
			m = s.facts(ctx, &known)
		case <-followed:
			m = &api.AgentMessage{Kind: &api.AgentMessage_Followed{Followed: s.Network.Followed()}}
		case a := <-answers:
			m = &api.AgentMessage{Kind: &api.AgentMessage_Answer{Answer: a}}
		case r := <-results:
			m = &api.AgentMessage{Kind: &api.AgentMessage_Exec{Exec: r}}
		case <-s.Worker.Changed():
			statuses := s.Worker.Statuses()
			if len(statuses) == 0 {
				continue
			}
			m = &api.AgentMessage{Kind: &api.AgentMessage_Report{Report: &api.ReportStatus{Statuses: statuses}}}
		}
		if m == nil {
			continue
		}
		if err := stream.Send(m); err != nil {
			return end(stream, err)
		}
	}
}

// facts is a message with what has changed of them; nil if nothing has.
func (s *keeper) facts(ctx context.Context, known **api.NodeFacts) *api.AgentMessage {
	now := s.Facts(ctx)
	if proto.Equal(now, *known) {
		return nil
	}
	*known = now
	return &api.AgentMessage{Kind: &api.AgentMessage_Facts{Facts: now}}
}

func (s *keeper) receive(ctx context.Context, stream *connect.BidiStreamForClient[api.AgentMessage, api.EngineMessage], work *sync.WaitGroup, commands *commands, answers chan<- *api.Answer, heard func()) error {
	logs := map[string]context.CancelFunc{}
	for {
		m, err := stream.Receive()
		if err != nil {
			return err
		}
		heard()
		switch k := m.Kind.(type) {
		case *api.EngineMessage_Membership:
			if s.Membership != nil {
				s.Membership(k.Membership)
			}
		case *api.EngineMessage_Assignments:
			s.Worker.Assign(k.Assignments)
		case *api.EngineMessage_Endpoints:
			if s.Network != nil {
				s.Network.Follow(k.Endpoints)
			}
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
		case *api.EngineMessage_Ask:
			if s.Answer != nil {
				work.Go(func() {
					a := s.Answer(ctx, k.Ask)
					a.Id = k.Ask.Id
					select {
					case answers <- a:
					case <-ctx.Done():
					}
				})
			}
		case *api.EngineMessage_Exec:
			work.Go(func() { commands.do(ctx, k.Exec) })
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

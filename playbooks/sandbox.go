package playbooks

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"orch/engine/api"
)

// Sandbox evaluates bundles in child processes of the running program, so
// that a playbook which takes all memory or time ends its child alone. The
// program's main must begin with
//
//	if playbooks.IsChild(os.Args) { playbooks.ChildMain() }
//
// The zero value is ready for use.
type Sandbox struct {
	MaxTime time.Duration // a child is killed after it; 0: 10 s
	// MaxMemory bounds a child's data (RLIMIT_DATA), in bytes; 0: 512 MiB.
	// Where the system has no such limit only the heap is watched.
	MaxMemory uint64
}

// The hidden first arguments of children: of Sandbox, of Worker.
const (
	childArg  = "orch-eval-child"
	workerArg = "orch-strategy-child"
)

// maxAnswer bounds what a child may send, in bytes.
const maxAnswer = 256 << 20

// answer follows the spec in what a child sends.
type answer struct {
	Failed      bool
	Diagnostics []Diagnostic
	Warnings    []string
}

// Evaluate evaluates a bundle. What is wrong with the playbook is an *Error.
func (s Sandbox) Evaluate(ctx context.Context, bundle *api.Bundle, paramsJSON string) (*api.StackSpec, []string, error) {
	limit, memory := s.MaxTime, s.MaxMemory
	if limit == 0 {
		limit = DefaultMaxTime
	}
	if memory == 0 {
		memory = DefaultMaxMemory
	}
	question, err := encodeQuestion(bundle, paramsJSON)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot evaluate the bundle: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errTooLong)
	defer cancel()
	self, err := executable()
	if err != nil {
		return nil, nil, fmt.Errorf("cannot start the evaluation: %w", err)
	}
	cmd := exec.CommandContext(ctx, self, childArg, fmt.Sprint(memory), limit.String())
	cmd.Env = []string{"GOTRACEBACK=none", "GOMAXPROCS=2"}
	cmd.Dir = "/"
	cmd.Stdin = bytes.NewReader(question)
	out, errs := &capped{max: maxAnswer}, &capped{max: 16 << 10}
	cmd.Stdout, cmd.Stderr = out, errs
	cmd.WaitDelay = time.Second
	done, err := start(cmd)
	if err == nil {
		err = cmd.Wait()
		done()
	}
	if err != nil {
		return nil, nil, childError(ctx, err, errs.String(), memory, limit, bundle.GetRoot())
	}
	return decodeAnswer(out.Bytes())
}

var errTooLong = errors.New("too long")

// childError says why a child ended without an answer.
func childError(ctx context.Context, err error, stderr string, memory uint64, limit time.Duration, root string) error {
	say := func(message string) error {
		return &Error{[]Diagnostic{{Severity: "error", File: root, Message: message}}}
	}
	switch {
	case errors.Is(context.Cause(ctx), errTooLong):
		return say(timeMessage("playbook", limit))
	case ctx.Err() != nil:
		return ctx.Err()
	case outOfMemory(stderr):
		return say(memoryMessage("playbook", memory))
	case strings.Contains(stderr, "stack overflow"):
		return say("the playbook nests values or calls too deeply")
	}
	first, _, _ := strings.Cut(strings.TrimSpace(stderr), "\n")
	return fmt.Errorf("the evaluation of the playbook ended without an answer: %w: %s", err, first)
}

// outOfMemory knows the last words of a Go program that the system refuses
// more memory. The collector of Go 1.26 doesn't check its own allocations: it
// ends with SIGSEGV outside of any panic.
func outOfMemory(stderr string) bool {
	if strings.HasPrefix(stderr, "SIGSEGV: ") || strings.HasPrefix(stderr, "fatal error: unexpected signal") {
		return true
	}
	for _, words := range []string{"out of memory", "cannot allocate", "failed to create new OS thread", "errno=12", "errno=11"} {
		if strings.Contains(stderr, words) {
			return true
		}
	}
	return false
}

func executable() (string, error) {
	// Also after an upgrade replaced the file on disk, this is the running one.
	if _, err := os.Stat("/proc/self/exe"); err == nil {
		return "/proc/self/exe", nil
	}
	return os.Executable()
}

// A question is the bundle's length (4 bytes, big-endian), the bundle, and
// the params; an answer is the spec's length, the spec, and an `answer`.

func encodeQuestion(b *api.Bundle, paramsJSON string) ([]byte, error) {
	if b == nil {
		return nil, errors.New("there is none")
	}
	return frame(b, []byte(paramsJSON))
}

func frame(m proto.Message, rest []byte) ([]byte, error) {
	text, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, err
	}
	out := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(text)+len(rest)), uint32(len(text)))
	return append(append(out, text...), rest...), nil
}

func unframe(b []byte, m proto.Message) (rest []byte, err error) {
	if len(b) < 4 || uint64(len(b)-4) < uint64(binary.BigEndian.Uint32(b)) {
		return nil, io.ErrUnexpectedEOF
	}
	end := 4 + binary.BigEndian.Uint32(b)
	return b[end:], proto.Unmarshal(b[4:end], m)
}

func decodeAnswer(b []byte) (*api.StackSpec, []string, error) {
	s := &api.StackSpec{}
	var a answer
	rest, err := unframe(b, s)
	if err == nil {
		err = json.Unmarshal(rest, &a)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("cannot read the evaluation's answer: %w", err)
	}
	if a.Failed {
		return nil, a.Warnings, &Error{a.Diagnostics}
	}
	return s, a.Warnings, nil
}

// capped keeps the first max bytes, and fails on more.
type capped struct {
	bytes.Buffer
	max int
}

func (c *capped) Write(p []byte) (int, error) {
	if c.Len()+len(p) > c.max {
		return 0, errors.New("the child says too much")
	}
	return c.Buffer.Write(p)
}

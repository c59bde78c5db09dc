package playbooks

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"orch/engine/api"
	"orch/engine/rollout"
)

// workerChild is a child under way; one question at a time.
type workerChild struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	stderr *capped
	done   func() // to be called once it has ended

	answered int // questions
}

// startChild bounds its memory, and the time that a strategy has.
func startChild(memory uint64, limit time.Duration) (*workerChild, error) {
	self, err := executable()
	if err != nil {
		return nil, err
	}
	c := &workerChild{cmd: exec.Command(self, workerArg, fmt.Sprint(memory), limit.String()), stderr: &capped{max: 16 << 10}}
	c.cmd.Env = []string{"GOTRACEBACK=none", "GOMAXPROCS=2"}
	c.cmd.Dir = "/"
	c.cmd.Stderr = c.stderr
	c.cmd.WaitDelay = time.Second
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.out = bufio.NewReader(out)
	c.done, err = start(c.cmd)
	return c, err
}

// end lets a child that is idle go, and waits for it.
func (c *workerChild) end() {
	c.in.Close()
	c.cmd.Wait()
	c.done()
}

// kill ends a child whatever it does, and says how it ended.
func (c *workerChild) kill() error {
	c.cmd.Process.Kill()
	err := c.cmd.Wait()
	c.done()
	return err
}

// ask is one question and its answer; answered is false where there was none
// and err says why.
func (c *workerChild) ask(q rollout.Question) (op *api.Op, answered bool, err error) {
	a := asked{Params: q.ParamsJson}
	if q.Bundle != nil {
		a.Bundle = hashOf(q.Bundle)
	}
	rest, err := json.Marshal(a)
	if err != nil {
		return nil, false, err
	}
	r := q.Rollout
	question := &api.Rollout{Id: r.GetId(), ServiceId: r.GetServiceId(), FromVersion: r.GetFromVersion(), ToVersion: r.GetToVersion(), Policy: r.GetPolicy(),
		From: r.GetFrom(), To: r.GetTo(), ApiVersion: r.GetApiVersion(), Journal: q.Journal}
	if err := writeFrame(c.in, askNext, question, rest); err != nil {
		return nil, false, err
	}
	for {
		kind, body, err := readMessage(c.out)
		if err != nil {
			return nil, false, err
		}
		switch kind {
		case wantBundle:
			err = writeFrame(c.in, giveBundle, q.Bundle, nil)
		case sayOp:
			op := &api.Op{}
			if err = proto.Unmarshal(body, op); err == nil {
				return op, true, nil
			}
		case sayError:
			var a answer
			if err = json.Unmarshal(body, &a); err == nil {
				if len(a.Diagnostics) > 0 {
					return nil, true, &Error{a.Diagnostics}
				}
				return nil, true, errors.New(strings.Join(a.Warnings, "\n"))
			}
		default:
			err = fmt.Errorf("it says %q", kind)
		}
		if err != nil {
			return nil, false, err
		}
	}
}

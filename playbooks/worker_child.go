package playbooks

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"orch/engine/api"
	"orch/engine/rollout"
)

// maxBundles is how many bundles a child keeps, the last used first.
const maxBundles = 4

// workerMain is a child of Worker: it answers what stands on in until it
// ends.
func workerMain(args []string, in io.Reader, out io.Writer) error {
	if len(args) != 2 {
		return errors.New("usage: " + workerArg + " BYTES DURATION")
	}
	limit, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	if _, err := boundMemory(args[0]); err != nil {
		return err
	}
	w := &bundleKeeper{in: bufio.NewReader(in), out: bufio.NewWriter(out)}
	strategies := &Strategies{MaxTime: limit}
	for {
		q, err := w.question()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			var op *api.Op
			op, err = strategies.Next(q)
			if op != nil {
				var body []byte
				if body, err = proto.Marshal(op); err == nil {
					err = writeMessage(w.out, sayOp, body)
				}
			} else {
				err = w.sayError(err)
			}
		}
		if err == nil {
			err = w.out.Flush()
		}
		if err != nil {
			return err
		}
	}
}

// bundleKeeper reads questions and keeps their bundles.
type bundleKeeper struct {
	in      *bufio.Reader
	out     *bufio.Writer
	bundles []*api.Bundle
}

func (w *bundleKeeper) question() (q rollout.Question, err error) {
	kind, body, err := readMessage(w.in)
	if err != nil {
		return q, err
	}
	r := &api.Rollout{}
	rest, err := unframe(body, r)
	var a asked
	if err == nil {
		err = json.Unmarshal(rest, &a)
	}
	if err != nil || kind != askNext {
		return q, fmt.Errorf("cannot read the question %q: %w", kind, err)
	}
	q = rollout.Question{Rollout: r, Journal: r.Journal, ParamsJson: a.Params}
	if a.Bundle != "" {
		q.Bundle, err = w.bundle(a.Bundle)
	}
	return q, err
}

// bundle finds a bundle, or asks for it.
func (w *bundleKeeper) bundle(hash string) (*api.Bundle, error) {
	i := slices.IndexFunc(w.bundles, func(b *api.Bundle) bool { return b.Hash == hash })
	if i >= 0 {
		b := w.bundles[i]
		w.bundles = slices.Insert(slices.Delete(w.bundles, i, i+1), 0, b)
		return b, nil
	}
	err := writeMessage(w.out, wantBundle, nil)
	if err == nil {
		err = w.out.Flush()
	}
	if err != nil {
		return nil, err
	}
	kind, body, err := readMessage(w.in)
	b := &api.Bundle{}
	if err == nil {
		_, err = unframe(body, b)
	}
	if err != nil || kind != giveBundle {
		return nil, fmt.Errorf("cannot read the bundle %q: %w", kind, err)
	}
	b.Hash = hash
	w.bundles = slices.Insert(w.bundles, 0, b)
	w.bundles = w.bundles[:min(len(w.bundles), maxBundles)]
	return b, nil
}

// sayError answers with an error, or fails to.
func (w *bundleKeeper) sayError(err error) error {
	a := answer{Failed: true}
	var e *Error
	if errors.As(err, &e) {
		a.Diagnostics = e.Diagnostics
	} else {
		a.Warnings = []string{err.Error()}
	}
	body, err := json.Marshal(a)
	if err != nil {
		return err
	}
	return writeMessage(w.out, sayError, body)
}

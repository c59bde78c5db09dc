package playbooks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strconv"
	"time"

	"orch/engine/api"
)

// IsChild says whether a program started with args is a child of Sandbox or
// of Worker.
func IsChild(args []string) bool {
	return len(args) > 1 && (args[1] == childArg || args[1] == workerArg)
}

// ChildMain is all that a child does: it bounds itself, answers what stands on
// stdin on stdout, and exits.
func ChildMain() {
	do := child
	if os.Args[1] == workerArg {
		do = workerMain
	}
	if err := do(os.Args[2:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func child(args []string, in io.Reader, out io.Writer) error {
	if len(args) != 2 {
		return errors.New("usage: " + childArg + " BYTES DURATION")
	}
	memory, err := boundMemory(args[0])
	if err != nil {
		return err
	}
	limit, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	question, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	bundle := &api.Bundle{}
	params, err := unframe(question, bundle)
	if err != nil {
		return fmt.Errorf("cannot read the bundle: %w", err)
	}
	r, err := Eval(context.Background(), Options{Bundle: bundle, ParamsJSON: string(params), MaxTime: limit, MaxMemory: memory})
	a := answer{}
	s := &api.StackSpec{}
	if r != nil {
		for _, w := range r.Warnings {
			a.Warnings = append(a.Warnings, w.String())
		}
	}
	if err != nil {
		a.Failed = true
		var e *Error
		if errors.As(err, &e) {
			a.Diagnostics = e.Diagnostics
		} else {
			a.Diagnostics = []Diagnostic{{Severity: "error", File: bundle.Root, Message: err.Error()}}
		}
	} else {
		s = r.Spec
	}
	rest, err := json.Marshal(a)
	if err != nil {
		return err
	}
	text, err := frame(s, rest)
	if err != nil {
		return err
	}
	_, err = out.Write(text)
	return err
}

// boundMemory bounds what this process may take, in bytes.
func boundMemory(text string) (uint64, error) {
	memory, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, err
	}
	if err := limitMemory(memory); err != nil {
		return 0, fmt.Errorf("cannot bound the memory of an evaluation: %w", err)
	}
	// Collect garbage before the limit is hit, and keep the rest for the stack
	// and what the runtime itself needs.
	debug.SetMemoryLimit(int64(memory / 8 * 7))
	debug.SetMaxStack(64 << 20)
	return memory, nil
}

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
)

// orchRun runs orch with its own ORCH_HOME and cache, and returns what it
// printed.
func (b *bench) orchRun(ctx context.Context, home string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, b.orch, args...)
	cmd.Env = append(os.Environ(), "ORCH_HOME="+home, "XDG_CACHE_HOME="+b.dir)
	return output(cmd)
}

func docker(ctx context.Context, args ...string) (string, error) {
	return output(exec.CommandContext(ctx, "docker", args...))
}

func output(cmd *exec.Cmd) (string, error) {
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

// parallel runs do n times side by side; the first error counts.
func parallel(n int, do func(i int) error) error {
	errs := make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { errs[i] = do(i) })
	}
	all.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

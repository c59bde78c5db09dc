package playbooks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime/metrics"
	"sync"
	"time"

	"go.starlark.net/starlark"
)

// Limits of one evaluation.
const (
	DefaultMaxSteps  = 50_000_000
	DefaultMaxTime   = 10 * time.Second
	DefaultMaxMemory = 512 << 20
)

// guard cancels the thread when it passes a limit, saying which. The
// function it returns ends the watch and waits for it.
func guard(ctx context.Context, thread *starlark.Thread, o Options) func() {
	steps, limit, memory, what := o.MaxSteps, o.MaxTime, o.MaxMemory, cmp.Or(o.what, "playbook")
	if steps == 0 {
		steps = DefaultMaxSteps
	}
	if limit == 0 {
		limit = DefaultMaxTime
	}
	if memory == 0 {
		memory = DefaultMaxMemory
	}
	limitSteps(thread, what, steps)
	ctx, cancel := context.WithTimeout(ctx, limit)
	var watch sync.WaitGroup
	watch.Go(func() {
		sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}} // garbage included
		heap := func() uint64 { metrics.Read(sample); return sample[0].Value.Uint64() }
		before := heap()
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				if errors.Is(ctx.Err(), context.DeadlineExceeded) {
					thread.Cancel(timeMessage(what, limit))
				} else {
					thread.Cancel("interrupted")
				}
				return
			case <-tick.C:
				if now := heap(); now > before && now-before > memory {
					thread.Cancel(memoryMessage(what, memory))
				}
			}
		}
	})
	return func() { cancel(); watch.Wait() }
}

// limitSteps lets the thread take so many steps more.
func limitSteps(thread *starlark.Thread, what string, steps uint64) {
	thread.SetMaxExecutionSteps(thread.ExecutionSteps() + steps)
	thread.OnMaxSteps = func(t *starlark.Thread) {
		t.Cancel(fmt.Sprintf("the %s took more than %d steps; is there a loop that is too long?", what, steps))
	}
}

func timeMessage(what string, limit time.Duration) string {
	return fmt.Sprintf("the %s took longer than %v", what, limit)
}

func memoryMessage(what string, limit uint64) string {
	return fmt.Sprintf("the %s used more than %d MiB of memory", what, limit>>20)
}

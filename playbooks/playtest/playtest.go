// Package playtest runs the tests of playbooks: functions test_*(t) in files
// *_test.star. What t offers stands in one place, the tables that `orch doc t`
// prints: eq, ne, true, contains and fails check, plan evaluates a playbook, and
// simulate plays its release through in engine/simulate. A test ends at its
// first failure. Tests of one Run go one after the other, each under the limits
// of an evaluation, but for its time.
//
// A file here holds a function of t with its table (plan, simulate) or what it
// reads its arguments into (nodes, scenario, kill) and shows (simulation).
package playtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"orch/engine/api"
	"orch/engine/spec"
	"orch/playbooks"
)

// Options of a run. The zero value runs all tests.
type Options struct {
	Match func(test string) bool // which tests to run, by name; nil: all
	// Changes compares a plan with what runs; nil: with nothing.
	Changes func(*api.StackSpec) []*api.Change
	// CacheDir is for compiled playbooks; "": none.
	CacheDir string
	// Cover collects which lines of strategies simulations reach; nil: nothing
	// does.
	Cover *playbooks.Coverage
	// MaxTime is how long a test may take; 0: DefaultMaxTime.
	MaxTime time.Duration
}

// DefaultMaxTime is more than an evaluation gets: a test may play many releases
// through.
const DefaultMaxTime = time.Minute

// Result is how one test went. A file that can't be evaluated is a Result
// without Test.
type Result struct {
	File    string        `json:"file"`
	Test    string        `json:"test,omitempty"`
	Elapsed time.Duration `json:"elapsed_ns"`
	Output  []string      `json:"output,omitempty"` // what it printed
	Err     error         `json:"-"`                // nil: passed; else mostly a *playbooks.Error
	Failure string        `json:"failure,omitempty"`
}

// OK says whether the test passed.
func (r Result) OK() bool { return r.Err == nil }

// Run runs the tests in files and, for folders, below them (vendor, testdata and
// hidden folders left out), passing each result to report as it comes. The
// error is about finding tests, not about failing ones.
func Run(ctx context.Context, paths []string, o Options, report func(Result)) error {
	files, err := playbooks.Files(paths, "_test.star")
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return fmt.Errorf("there are no *_test.star files in %s", strings.Join(paths, ", "))
	}
	o.MaxTime = cmp.Or(o.MaxTime, DefaultMaxTime)
	ask := &playbooks.Strategies{Cover: o.Cover}
	for _, file := range files {
		if err := ctx.Err(); err != nil {
			return err
		}
		runFile(ctx, file, o, ask, report)
	}
	return nil
}

func runFile(ctx context.Context, file string, o Options, ask *playbooks.Strategies, report func(Result)) {
	var output []string
	begun := time.Now()
	m, err := playbooks.OpenModule(ctx, playbooks.Options{Path: file, CacheDir: o.CacheDir, MaxTime: o.MaxTime,
		Print: func(pos, text string) { output = append(output, pos+": "+text) }})
	if err != nil {
		report(Result{File: file, Elapsed: time.Since(begun), Output: output, Err: err, Failure: err.Error()})
		return
	}
	defer m.Close()
	names := m.Functions("test_")
	if len(names) == 0 {
		err := errors.New("it has no functions test_*")
		report(Result{File: file, Err: err, Failure: err.Error()})
	}
	for _, name := range names {
		if o.Match != nil && !o.Match(name) {
			continue
		}
		output = nil
		begun := time.Now()
		r := Result{File: file, Test: name}
		if r.Err = m.Call(ctx, name, newT(&tester{ctx, m, o, ask})); r.Err != nil {
			r.Failure = r.Err.Error()
		}
		r.Elapsed, r.Output = time.Since(begun), output
		report(r)
	}
}

// fromNothing are the changes of a first run.
func fromNothing(s *api.StackSpec) []*api.Change { return spec.Changes(nil, s) }

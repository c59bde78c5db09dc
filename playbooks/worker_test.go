package playbooks

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"orch/builtins"
	"orch/engine/api"
	"orch/engine/rollout"
)

func newWorker(t testing.TB, w *Worker) *Worker {
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *Worker) pid() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.child == nil {
		return 0
	}
	return w.child.cmd.Process.Pid
}

func TestWorkerGivesWhatStrategiesGive(t *testing.T) {
	w := newWorker(t, &Worker{})
	for n := range libraryCases {
		here, there := fakeOfLibrary(n, 4), fakeOfLibrary(n, 4)
		if err := here.play(&Strategies{}, always); err != nil {
			t.Fatal(err)
		}
		if err := there.play(w, always); err != nil {
			t.Fatal(err)
		}
		if here.text() != there.text() || here.q.Journal[1].Origin != there.q.Journal[1].Origin {
			t.Errorf("%v: the child says\n%s\nnot\n%s", libraryCases[n], there.text(), here.text())
		}
	}
	f := strategyOfText(1, "n = param('n')\ndef f(r):\n    r.event(n)\n")
	f.q.ParamsJson = `{"n":"x"}`
	if op, err := w.Next(f.q); err != nil || op.Text != "x" {
		t.Errorf("with params: %v, %v", op, err)
	}
}

// A rollout goes on with the library that it began with.
func TestTheBundlesLibraryGoes(t *testing.T) {
	w := newWorker(t, &Worker{})
	f := newFake(2, &api.RolloutPolicy{Strategy: builtins.Library, Parallelism: "1"})
	f.q.Bundle = bundleOf("x.star", map[string]string{"x.star": "no playbook", "@orch//rollout.star": "load('//more.star', 'text')\ndef rolling(r, **kwargs):\n    r.event(text)\n",
		"@orch//more.star": "text = 'of old'\n"})
	for name, s := range map[string]rollout.Strategy{"here": &Strategies{}, "in a child": w} {
		if op, err := s.Next(f.q); err != nil || op.Text != "of old" {
			t.Errorf("%s: %v, %v", name, op, err)
		}
	}
}

func TestWorkerErrorsComeWhole(t *testing.T) {
	w := newWorker(t, &Worker{})
	for _, text := range []string{"def f(r):\n    fail('no')\n", "def g(r): pass\n", "def f(r):\n    for i in range(1000000000):\n        pass\n", "def f(r):\n    r.pause('1')\n", "x = (", "def f(r):\n    r.event('\\xff')\n"} {
		f := strategyOfText(1, text)
		_, want := (&Strategies{}).Next(f.q)
		_, got := w.Next(f.q)
		if want == nil || got == nil || strings.ReplaceAll(got.Error(), "\u00a0", " ") != strings.ReplaceAll(want.Error(), "\u00a0", " ") {
			t.Errorf("%q: got\n%v\nwant\n%v", text, got, want)
		}
	}
	_, err := w.Next(strategyOfText(1, "def f(r):\n    pass\n").q)
	var e *Error
	if !errors.As(err, &e) || e.Diagnostics[0].Line != 1 || e.Diagnostics[0].File != "x.star" {
		t.Errorf("got %#v", err)
	}
}

func TestWorkerKillsWhatTakesTooLong(t *testing.T) {
	w := newWorker(t, &Worker{MaxTime: 500 * time.Millisecond})
	good := strategyOfText(1, "def f(r):\n    r.succeed()\n")
	if _, err := w.Next(good.q); err != nil {
		t.Fatal(err)
	}
	before := w.pid()
	// One call of a builtin that nothing interrupts.
	_, err := w.Next(strategyOfText(1, "def f(r):\n    x = 'a' * 10000000\n    x.count('a' * 5000000 + 'b')\n    y = ['a' * 100000 for _ in range(200)]\n    for i in range(1000000):\n        (x + 'b').count('ab')\n").q)
	if err == nil || !strings.Contains(err.Error(), "x.star: the strategy took longer than 500ms") {
		t.Errorf("got %v", err)
	}
	if w.pid() != 0 {
		t.Error("the child lives on")
	}
	if op, err := w.Next(good.q); err != nil || op.Kind != "succeed" || w.pid() == before {
		t.Errorf("afterwards: %v, %v", op, err)
	}
}

func TestWorkerBoundsMemory(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector's shadow memory leaves no room for a limit")
	}
	w := newWorker(t, &Worker{MaxTime: time.Minute}) // on a busy machine taking it takes long
	for name, body := range map[string]string{
		"list":   "x = [0]\n    for i in range(60):\n        x = x + x\n",
		"repeat": "x = ['%s' % i * 1000000000 for i in range(8)]\n",
	} {
		_, err := w.Next(strategyOfText(1, "def f(r):\n    "+body).q)
		if err == nil || !strings.Contains(err.Error(), "the strategy used more than 512 MiB of memory") {
			t.Errorf("%s: got %v", name, err)
		}
		if op, err := w.Next(strategyOfText(1, "def f(r):\n    r.succeed()\n").q); err != nil || op.Kind != "succeed" {
			t.Errorf("after %s: %v, %v", name, op, err)
		}
	}
}

func TestWorkerSurvivesDeepNesting(t *testing.T) {
	w := newWorker(t, &Worker{})
	f := strategyOfText(1, "def f(r):\n    x = []\n    for i in range(900000):\n        x = [x]\n    str(x)\n")
	if _, err := w.Next(f.q); err == nil {
		t.Error("no error")
	}
}

func TestWorkerReplacesAChildThatEnded(t *testing.T) {
	w := newWorker(t, &Worker{})
	f := strategyOfText(1, "def f(r):\n    r.succeed()\n")
	for range 3 {
		if _, err := w.Next(f.q); err != nil {
			t.Fatal(err)
		}
		w.mu.Lock()
		w.child.cmd.Process.Kill()
		w.mu.Unlock()
	}
}

func TestWorkerKeepsFewBundles(t *testing.T) {
	w := newWorker(t, &Worker{})
	for range 2 {
		for n := range maxBundles + 2 {
			f := strategyOfText(1, fmt.Sprintf("def f(r):\n    r.event('%d')\n", n))
			for range 2 {
				if op, err := w.Next(f.q); err != nil || op.Text != fmt.Sprint(n) {
					t.Fatal(op, err)
				}
			}
		}
	}
}

func TestWorkerConcurrently(t *testing.T) {
	w := newWorker(t, &Worker{})
	var all sync.WaitGroup
	for n := range 8 {
		all.Go(func() {
			f := strategyOfText(3, fmt.Sprintf("def f(r):\n    for s in r.slots():\n        r.replace([s])\n        r.event('%d')\n    r.succeed()\n", n))
			if err := f.play(w, always); err != nil || len(f.q.Journal) != 8 || f.q.Journal[2].Text != fmt.Sprint(n) {
				t.Errorf("%d: %v\n%s", n, err, f.text())
			}
		})
	}
	all.Wait()
}

func TestStrategiesConcurrently(t *testing.T) {
	s := &Strategies{}
	root := strategyOfText(3, "web = service('web', image = 'x')\ndef f(r):\n    n = param('n', type = 'list')\n    r.event(web.with_(replicas = len(n)).url(80))\n    r.succeed()\n")
	root.q.ParamsJson = `{"n": [1, [2]]}`
	var all sync.WaitGroup
	for n := range 8 {
		all.Go(func() {
			if _, err := s.Next(root.q); err != nil {
				t.Error(err)
			}
			f := fakeOfLibrary(n%len(libraryCases), 5)
			if err := f.play(s, always); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

func TestWorkerEndsWhenIdleAndClosed(t *testing.T) {
	w := newWorker(t, &Worker{Idle: time.Millisecond})
	f := strategyOfText(1, "def f(r):\n    r.succeed()\n")
	for range 2 {
		if _, err := w.Next(f.q); err != nil {
			t.Fatal(err)
		}
		w.timers.Wait()
		if w.pid() != 0 {
			t.Error("an idle child lives on")
		}
	}
	w.Idle = time.Hour
	if _, err := w.Next(f.q); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if w.pid() != 0 {
		t.Error("a closed worker has a child")
	}
	if _, err := w.Next(f.q); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("got %v", err)
	}
}

// BenchmarkWorker100 is BenchmarkReplay100 by way of a child.
func BenchmarkWorker100(b *testing.B) {
	f := newFake(50, &api.RolloutPolicy{Strategy: builtins.Library, Parallelism: "1", Order: "start-first", OnFailure: "rollback"})
	w := newWorker(b, &Worker{})
	if err := f.play(w, always); err != nil {
		b.Fatal(err)
	}
	f.q.Journal = f.q.Journal[:101]
	for b.Loop() {
		if op, err := w.Next(f.q); err != nil || op.Kind != "succeed" {
			b.Fatal(op, err)
		}
	}
}

// A child outlives the thread that was running when it was started: the
// program may end that one at any time.
func TestChildrenOutliveThreads(t *testing.T) {
	w := newWorker(t, &Worker{})
	q := strategyOfText(1, "def f(r):\n    r.event('x')\n").q
	for range 20 {
		before := w.pid()
		done := make(chan error)
		go func() {
			runtime.LockOSThread() // not unlocked: the thread ends
			_, err := w.Next(q)
			done <- err
		}()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if now := w.pid(); before != 0 && now != before {
			t.Fatalf("child %d was replaced by %d", before, now)
		}
	}
}

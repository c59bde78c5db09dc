package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// bin is the folder of the program that the tests run: the real one, as its
// children (sandbox, supervisor, daemon) run it again.
var bin string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	var err error
	if bin, err = os.MkdirTemp("", "orch-test"); err == nil {
		defer os.RemoveAll(bin)
		build := exec.Command("go", "build", "-o", filepath.Join(bin, "orch"), ".")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, buildErr := build.CombinedOutput(); buildErr != nil {
			err = fmt.Errorf("%w\n%s", buildErr, out)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cannot build orch:", err)
		return 1
	}
	return m.Run()
}

// TestScript runs testdata/script/*.txtar: what an operator types, and what
// must come of it. Each has a cluster of its own, on plain processes.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			home := filepath.Join(e.WorkDir, "home")
			e.Setenv("ORCH_HOME", home)
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("PATH", bin+string(filepath.ListSeparator)+os.Getenv("PATH"))
			e.Defer(func() { // whatever came of it
				down := exec.Command(filepath.Join(bin, "orch"), "down")
				down.Env = append(os.Environ(), "ORCH_HOME="+home)
				_ = down.Run() // mostly nothing runs any more
			})
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":      exits,
			"eventually": eventually,
			"tasks":      tasks,
			"secretfree": secretFree,
		},
	})
}

// exits CODE PROGRAM ARG... runs a program that must end with a code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARG...")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := "0"
	if exit, ok := err.(*exec.ExitError); ok {
		code = fmt.Sprint(exit.ExitCode())
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if code != args[0] {
		ts.Fatalf("exit code %s, want %s", code, args[0])
	}
}

// eventually TEXT PROGRAM ARG... runs a program until its output has the text
// in it; with ! until it has not.
func eventually(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: [!] eventually TEXT PROGRAM ARG...")
	}
	deadline := time.After(15 * time.Second)
	tick := time.NewTicker(30 * time.Millisecond)
	defer tick.Stop()
	for {
		path := args[1]
		if path == "orch" {
			path = filepath.Join(bin, path)
		}
		cmd := exec.Command(path, args[2:]...)
		cmd.Dir, cmd.Env = ts.Getenv("WORK"), []string{"ORCH_HOME=" + ts.Getenv("ORCH_HOME"), "PATH=" + ts.Getenv("PATH"), "HOME=" + ts.Getenv("HOME")}
		out, _ := cmd.CombinedOutput() // its text is what counts
		if strings.Contains(string(out), args[0]) != neg {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			ts.Fatalf("never came to pass; the last output was:\n%s", out)
		}
	}
}

// tasks WORD COUNT counts this host's processes that have WORD among their
// arguments.
func tasks(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: tasks WORD COUNT")
	}
	if got := fmt.Sprint(len(processes(args[0]))); got != args[1] {
		ts.Fatalf("%s processes have %q among their arguments, want %s", got, args[0], args[1])
	}
}

// processes lists the pids of processes that have word among their arguments.
func processes(word string) []string {
	var pids []string
	found, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range found {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it is gone
		}
		for _, arg := range strings.Split(string(b), "\x00") {
			if arg == word {
				pids = append(pids, filepath.Base(filepath.Dir(path)))
				break
			}
		}
	}
	return pids
}

// secretfree TEXT looks through all of the cluster's files for a text that
// must not be there.
func secretFree(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: secretfree TEXT")
	}
	files := 0
	err := filepath.WalkDir(ts.Getenv("ORCH_HOME"), func(path string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		files++
		b, err := os.ReadFile(path)
		if strings.Contains(string(b), args[0]) {
			ts.Fatalf("%s holds the text", path)
		}
		return err
	})
	ts.Check(err)
	if files < 4 {
		ts.Fatalf("only %d files", files)
	}
}

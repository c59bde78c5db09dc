// Command demo runs playbooks/tick.star with all that it takes on a machine
// that may have no registry and no Docker: it finds or makes the images (or,
// without Docker, the programs), starts `orch run` as its child, says where
// the dashboard is, and passes Ctrl-C on. `make demo` is its user.
//
//	go run ./playbooks/demo -orch bin/orch            until Ctrl-C
//	go run ./playbooks/demo -orch bin/orch -check     proves it and ends
//	go run ./playbooks/demo -prepare                  only prints --set parameters
//
// Everything it keeps is below one cache folder; it never touches the user's
// own cluster. It speaks to Docker by plain HTTP, so no docker CLI is needed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

func main() {
	if err := demo(); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func demo() error {
	orch := flag.String("orch", "bin/orch", "the orch program")
	playbook := flag.String("playbook", "playbooks/tick.star", "the playbook to run")
	runtime := flag.String("runtime", "", "docker or process (default: docker where a daemon answers)")
	cache := flag.String("cache", "", "folder for what is built (default: orch/demo in the user's cache folder)")
	check := flag.Bool("check", false, "end after the dashboard shows points, and check that nothing is left")
	prepare := flag.Bool("prepare", false, "make images or programs, print the --set parameters, and end")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if *cache == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return fmt.Errorf("no folder for what is built (give one with -cache): %w", err)
		}
		*cache = filepath.Join(dir, "orch", "demo")
	}
	p := &Preparer{Cache: *cache, Runtime: *runtime, Say: say}
	params, err := p.Prepare(ctx)
	if err != nil {
		return err
	}
	if *prepare {
		for _, s := range params.Args() {
			fmt.Println(s)
		}
		return nil
	}
	run := &Run{
		Orch: *orch, Playbook: *playbook, Params: params, Say: say,
		Home: filepath.Join(*cache, "cluster"), Path: p.Bin(),
	}
	if *check {
		return run.Check(ctx, 2*time.Minute, p.Docker)
	}
	err = run.Show(ctx)
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

var began = time.Now()

// say tells the human what is going on; results go to stdout, this does not.
func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "demo %3.0fs  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
}

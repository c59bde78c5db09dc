package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// eval measures `orch eval` as a whole process: start, evaluation, output.
func (b *bench) eval(ctx context.Context) error {
	loop := filepath.Join(b.dir, "loop.star")
	text := `stack("loop", services = [service("s%d" % i, image = "web:1", replicas = 3, env = {"N": str(i)}) for i in range(10000)])` + "\n"
	if err := os.WriteFile(loop, []byte(text), 0o600); err != nil {
		return err
	}
	var flat strings.Builder
	flat.WriteString("all = []\n")
	for i := 0; flat.Len() < 2_900_000; i++ {
		fmt.Fprintf(&flat, "all.append(service(\"service-%d\", image = \"registry.example/team/web:1.%d\", replicas = 3, env = {\"NUMBER\": \"%d\", \"LEVEL\": \"info\"}, ports = [port(8080)], health = health.http(\"/health\", port = 8080, interval = \"5s\"), labels = {\"team\": \"t%d\", \"note\": \"a line of the usual length\"}))\n", i, i, i, i%20)
	}
	flat.WriteString("stack(\"flat\", services = all)\n")
	path := filepath.Join(b.dir, "flat.star")
	if err := os.WriteFile(path, []byte(flat.String()), 0o600); err != nil {
		return err
	}
	for _, c := range []struct {
		what, path string
		limit      time.Duration
	}{
		{"orch eval, 10,000 services from a loop", loop, 100 * time.Millisecond},
		{fmt.Sprintf("orch eval, flat %.1f MB, compiled program cached", float64(flat.Len())/1e6), path, 200 * time.Millisecond},
	} {
		once := func(int) error { _, err := b.orchRun(ctx, b.dir, "eval", c.path); return err }
		if err := once(0); err != nil { // fills the cache
			return err
		}
		got, err := b.times(once)
		if err != nil {
			return err
		}
		b.rows = append(b.rows, row{what: c.what, got: got, peer: c.limit, than: "limit", goal: "1", note: "whole process, output as JSON included"})
	}
	return nil
}

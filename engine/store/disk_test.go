package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"orch/engine/store"
)

// A disk that is really full, and is emptied again.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, config func(dir string) store.Config) {
		dir := small(t, "4m")
		ballast := filepath.Join(dir, "ballast")
		s := lead(t, config(filepath.Join(dir, "data")))
		propose(t, s, names("before", 10)...)
		fill(t, ballast)

		acknowledged := map[string]bool{}
		var refused error
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		for i := 0; refused == nil; i++ { // free pages in the file take some yet
			name := fmt.Sprintf("full%04d", i)
			c := putNode(name)
			c.GetPutNode().StatusReason = strings.Repeat("x", 10_000)
			if _, refused = s.Propose(ctx, c); refused == nil {
				acknowledged[name] = true
			}
		}
		if !strings.Contains(refused.Error(), "no space left on device") || !strings.Contains(refused.Error(), "goes on by itself") {
			t.Errorf("got %q", refused)
		}
		began := time.Now()
		if _, err := s.Propose(ctx, putNode("refused")); err == nil || time.Since(began) > time.Second {
			t.Errorf("while the disk is full: %v after %s", err, time.Since(began))
		}
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() bool { _, err := s.Propose(ctx, putNode("after")); return err == nil })
		check := func() {
			t.Helper()
			for name := range acknowledged {
				if s.View().Node(name) == nil {
					t.Errorf("%s was acknowledged and is lost", name)
				}
			}
			if s.View().Node("before009") == nil || s.View().Node("after") == nil {
				t.Error("what was written before or after is lost")
			}
		}
		check()
		shut(t, s)
		s = lead(t, config(filepath.Join(dir, "data")))
		defer shut(t, s)
		check()
	})
}

// small mounts a file system of its own.
func small(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("orch-test", dir, "tmpfs", 0, "size="+size); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("CI must be able to mount a tmpfs: ", err)
		}
		t.Skip("this test mounts a tmpfs, which needs root: ", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int{64 << 10, 4096, 1} {
		for block := make([]byte, size); ; {
			if _, err := f.Write(block); errors.Is(err, syscall.ENOSPC) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
}

package folder

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Lock takes a data folder for this process. The lock goes with the process,
// however that ends.
func Lock(dir string) (unlock func(), err error) {
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot lock the data folder: %w", err)
	}
	if err := flock(f); err != nil {
		defer f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("cannot lock the data folder %s: %w", dir, err)
		}
		return nil, &InUseError{Dir: dir, PID: holder(f)}
	}
	if err := f.Truncate(0); err == nil {
		_, _ = fmt.Fprintln(f, os.Getpid()) // for people; the lock is what counts
	}
	return func() { f.Close() }, nil
}

// flock tries for a moment: whoever only asks whether the folder is taken
// holds its lock that long.
func flock(f *os.File) error {
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for tries := 0; ; tries++ {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) || tries == 20 {
			return err
		}
		<-again.C
	}
}

func holder(f *os.File) string {
	b := make([]byte, 20)
	n, _ := f.ReadAt(b, 0)
	return strings.TrimSpace(string(b[:n]))
}

// InUse says whether a process has the data folder, and which: "" for a
// moment, until it has said so.
func InUse(dir string) (pid string, used bool) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR, 0)
	if err != nil {
		return "", false
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB); !errors.Is(err, syscall.EWOULDBLOCK) {
		return "", false
	}
	return holder(f), true
}

// InUseError says that another process has the data folder.
type InUseError struct{ Dir, PID string }

func (e *InUseError) Error() string {
	return fmt.Sprintf("the data folder %s is in use by another orch (process %s)", e.Dir, e.PID)
}

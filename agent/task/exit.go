package task

import (
	"fmt"
	"syscall"
)

// exited puts an exit code into words; 128 and more is, by the shells'
// convention, a signal.
func exited(code int) string {
	if n := code - 128; n > 0 && n < 65 {
		return fmt.Sprintf("exited with code %d (%s)", code, syscall.Signal(n))
	}
	return fmt.Sprintf("exited with code %d", code)
}

package builtins

import (
	"fmt"

	"orch/engine/spelling"
)

// Suggest says which of known the word was probably meant to be, as "did you
// mean ...?", or "".
func Suggest(word string, known []string) string {
	best := spelling.Nearest(word, known)
	if best == "" {
		return ""
	}
	return fmt.Sprintf("did you mean %q?", best)
}

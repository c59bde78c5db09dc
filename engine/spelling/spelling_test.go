package spelling_test

import (
	"testing"

	"orch/engine/spelling"
)

func TestNearest(t *testing.T) {
	known := []string{"db", "replicas", "role", "name", "ports", "web"}
	for word, want := range map[string]string{"replica": "replicas", "rol": "role", "nmae": "name", "wbe": "web", "prots": "ports", "zzzzzz": "", "": "", "ports": "ports"} {
		if got := spelling.Nearest(word, known); got != want {
			t.Errorf("%q: %q, want %q", word, got, want)
		}
	}
}

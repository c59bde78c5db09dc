package spec_test

import (
	"testing"

	"orch/engine/spec"
)

func TestBatchSize(t *testing.T) {
	for _, c := range []struct {
		parallelism string
		n, want     int
		bad         bool
	}{
		{"", 5, 1, false}, {"0", 5, 5, false}, {"0", 0, 1, false}, {"2", 5, 2, false}, {"9", 5, 9, false},
		{"25%", 5, 2, false}, {"25%", 4, 1, false}, {"1%", 3, 1, false}, {"100%", 7, 7, false}, {"50%", 0, 1, false},
		{"0%", 5, 0, true}, {"101%", 5, 0, true}, {"-1", 5, 0, true}, {"many", 5, 0, true}, {"%", 5, 0, true}, {"NaN%", 5, 0, true},
	} {
		got, err := spec.BatchSize(c.parallelism, c.n)
		if got != c.want || (err != nil) != c.bad {
			t.Errorf("BatchSize(%q, %d) = %d, %v", c.parallelism, c.n, got, err)
		}
	}
}

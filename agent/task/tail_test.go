package task_test

import (
	"strings"
	"testing"

	"orch/agent/task"
)

func TestTail(t *testing.T) {
	const most = task.MaxOutput
	for _, c := range []struct {
		name   string
		writes []string
		want   string
	}{
		{"nothing", nil, ""},
		{"little", []string{"a", "b\n"}, "ab\n"},
		{"just all", []string{strings.Repeat("x", most)}, strings.Repeat("x", most)},
		{"one too many", []string{"a", strings.Repeat("x", most)}, strings.Repeat("x", most)},
		{"a big one", []string{"before", strings.Repeat("a", most) + strings.Repeat("b", most)}, strings.Repeat("b", most)},
		{"many", strings.Split(strings.Repeat("0123456789abcde\n,", 3*most/16), ","), strings.Repeat("0123456789abcde\n", most/16)},
		{"within a character", []string{"é" + strings.Repeat("x", most-1)}, strings.Repeat("x", most-1)},
		{"no text at all", []string{strings.Repeat("\x80", most+1)}, strings.Repeat("\x80", most-3)},
		{"continuation at the start of all there is", []string{"\x80x"}, "\x80x"},
	} {
		var tail task.Tail
		for _, w := range c.writes {
			if n, err := tail.Write([]byte(w)); n != len(w) || err != nil {
				t.Fatalf("%s: wrote %d of %d, %v", c.name, n, len(w), err)
			}
		}
		if got := tail.String(); got != c.want {
			t.Errorf("%s: %d bytes, want %d", c.name, len(got), len(c.want))
		}
	}
}

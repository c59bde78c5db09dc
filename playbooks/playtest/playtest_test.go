package playtest

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestLibrary(t *testing.T) {
	passed := 0
	err := Run(t.Context(), []string{"../lib"}, Options{}, func(r Result) {
		if !r.OK() {
			t.Errorf("%s %s: %v", r.File, r.Test, r.Err)
		}
		passed++
	})
	if err != nil || passed != 4 {
		t.Errorf("%d tests, %v", passed, err)
	}
}

// Each test_* of testdata/fail_test.star must fail at a place and with a text.
func TestFailuresSayWhatAndWhere(t *testing.T) {
	want := map[string]string{
		"test_builtin":   `service has no parameter "imag"`,
		"test_contains":  `t.contains: "c" is not in ["a", "b"]`,
		"test_eq":        "t.eq: got 1, want 2",
		"test_fails":     "t.fails: it didn't fail",
		"test_fails_not": "t.fails: the error doesn't match \"x\": no",
		"test_no_such":   `the plan has no service "wob"; did you mean "web"?`,
		"test_outside":   "outside the root",
		"test_plan":      `did you mean "port"?`,
		"test_simulate":  "t.simulate comes with journaled strategies",
		"test_true":      "t.true: got []",
	}
	err := Run(t.Context(), []string{filepath.Join("testdata", "fail_test.star")}, Options{}, func(r Result) {
		text, ok := want[r.Test]
		if !ok || r.Err == nil || !strings.Contains(r.Failure, text) || !strings.Contains(r.Failure, "fail_test.star:") {
			t.Errorf("%s: want %q, got %v", r.Test, text, r.Err)
		}
		delete(want, r.Test)
	})
	if err != nil || len(want) > 0 {
		t.Errorf("left: %v, %v", want, err)
	}
}

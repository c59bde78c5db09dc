package playtest

import (
	"path/filepath"
	"strings"
	"testing"

	"orch/playbooks"
)

// The library's tests are its manual, too: each strategy has some, also with
// leaders that die, and together they reach all of its lines.
func TestLibrary(t *testing.T) {
	passed := map[string]bool{}
	cover := &playbooks.Coverage{}
	err := Run(t.Context(), []string{"../lib"}, Options{Cover: cover, MaxTime: unhurried}, func(r Result) {
		if !r.OK() {
			t.Errorf("%s %s: %v", r.File, r.Test, r.Err)
		}
		passed[r.Test] = true
	})
	if err != nil || len(passed) != 46 {
		t.Errorf("%d tests, %v", len(passed), err)
	}
	for _, s := range []string{"rolling", "canary", "blue_green", "progressive", "one_zone_at_a_time", "all_at_once"} {
		if !passed["test_"+s+"_survives_its_leaders"] {
			t.Errorf("%s isn't tested with dying leaders", s)
		}
	}
	files := cover.Files()
	if len(files) != 2 || files[0].File != "@orch//rollout.star" && files[1].File != "@orch//rollout.star" {
		t.Errorf("covered: %v", files)
	}
	for _, f := range files {
		if len(f.Missed) > 0 {
			t.Errorf("no test reaches %s: %v", f.File, f.Missed)
		}
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
		"test_keyword":   `t.plan has no parameter "parms"; did you mean "params"?`,
		"test_missing":   "t.eq needs want",
		"test_named":     "t.eq takes only got and want without a name",
		"test_not_text":  "t.plan: path must be a string, not 1 (int)",
		"test_true":      "t.true: got []",
	}
	failing(t, "fail_test.star", want)
}

// failing runs a file of testdata whose tests fail as wanted, by name.
func failing(t *testing.T, file string, want map[string]string) {
	t.Helper()
	err := Run(t.Context(), []string{filepath.Join("testdata", file)}, Options{MaxTime: unhurried}, func(r Result) {
		text, ok := want[r.Test]
		if !ok || r.Err == nil || !strings.Contains(r.Failure, text) || !strings.Contains(r.Failure, file+":") {
			t.Errorf("%s: want %q, got %v", r.Test, text, r.Err)
		}
		delete(want, r.Test)
	})
	if err != nil || len(want) > 0 {
		t.Errorf("left: %v, %v", want, err)
	}
}

package playbooks

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"orch/engine/api"
)

func TestMain(m *testing.M) {
	if IsChild(os.Args) {
		ChildMain()
	}
	os.Exit(m.Run())
}

func bundleOf(root string, files map[string]string) *api.Bundle {
	raw := map[string][]byte{}
	for name, text := range files {
		raw[name] = []byte(text)
	}
	return newBundle(root, raw)
}

func TestSandboxGivesWhatEvalGives(t *testing.T) {
	r, err := Eval(t.Context(), Options{Path: "tick.star", Params: map[string]any{"dashboard_port": "9999"}})
	if err != nil {
		t.Fatal(err)
	}
	spec, warnings, err := Sandbox{}.Evaluate(t.Context(), r.Bundle, r.ParamsJSON)
	if err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(spec, r.Spec) || len(warnings) != len(r.Warnings) {
		t.Errorf("the child made another spec: %v", spec)
	}
}

func TestSandboxReportsDiagnostics(t *testing.T) {
	b := bundleOf("x.star", map[string]string{"x.star": "volume('v')\nservice('a', imge = 'b')\nservice('c')\n"})
	_, _, err := Sandbox{}.Evaluate(t.Context(), b, "")
	var e *Error
	if !errors.As(err, &e) || len(e.Diagnostics) != 2 || e.Diagnostics[0].Line != 2 || !strings.Contains(err.Error(), `did you mean "image"?`) {
		t.Fatalf("got %v", err)
	}
	b.Hash = strings.Repeat("0", 64)
	if _, _, err := (Sandbox{}).Evaluate(t.Context(), b, ""); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("a damaged bundle: %v", err)
	}
}

// The bombs of TestSandboxBoundsMemory take memory in steps that a watch
// between them could see, and in one that it could not.
func TestSandboxBoundsMemory(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector's shadow memory leaves no room for a limit")
	}
	for name, text := range map[string]string{
		"list":   "def f():\n    x = [0]\n    for i in range(60):\n        x = x + x\nf()\n",
		"append": "x = []\nfor i in range(1000000):\n    x.append('%d' % i * 1000)\n",
		"repeat": "x = ['%s' % i * 1000000000 for i in range(8)]\n",
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			b := bundleOf("bomb.star", map[string]string{"bomb.star": text})
			_, _, err := Sandbox{}.Evaluate(t.Context(), b, "")
			if err == nil || !strings.Contains(err.Error(), "used more than 512 MiB") {
				t.Fatalf("got %v", err)
			}
			t.Logf("after %v: %v", time.Since(start), err)
		})
	}
}

func TestSandboxBoundsSteps(t *testing.T) {
	b := bundleOf("long.star", map[string]string{"long.star": "def f():\n    for i in range(1000000000):\n        pass\nf()\n"})
	_, _, err := Sandbox{MaxTime: 5 * time.Minute}.Evaluate(t.Context(), b, "")
	if err == nil || !strings.Contains(err.Error(), "more than 50000000 steps") {
		t.Errorf("got %v", err)
	}
}

func TestSandboxBoundsTime(t *testing.T) {
	// One call of a builtin that no step limit interrupts.
	b := bundleOf("slow.star", map[string]string{"slow.star": "x = [('a' * 100000).count('aaaaaaaaaaaaaaaaaaab') for i in range(1000000)]\n"})
	_, _, err := Sandbox{MaxTime: 200 * time.Millisecond}.Evaluate(t.Context(), b, "")
	if err == nil || !strings.Contains(err.Error(), "longer than 200ms") {
		t.Errorf("got %v", err)
	}
}

func TestSandboxSurvivesDeepNesting(t *testing.T) {
	for name, text := range map[string]string{
		"values": "x = []\nfor i in range(3000000):\n    x = [x]\ny = str(x)\n",
		"source": "x = " + strings.Repeat("(", 2000000) + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := Sandbox{}.Evaluate(t.Context(), bundleOf("deep.star", map[string]string{"deep.star": text}), "")
			var e *Error
			if !errors.As(err, &e) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func write(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

package playbooks

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFormat(t *testing.T) {
	got, err := Format("x.star", []byte("x=service( 'a',image=\"b\",\n  replicas=3)\n"))
	if err != nil || string(got) != "x = service(\n    \"a\",\n    image = \"b\",\n    replicas = 3,\n)\n" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := Format("x.star", []byte("x = (")); err == nil || !strings.Contains(err.Error(), "x.star:1:6") {
		t.Errorf("got %v", err)
	}
}

func TestShippedPlaybooksAreTidy(t *testing.T) {
	files, _ := filepath.Glob("*.star")
	library, _ := filepath.Glob("lib/*.star")
	for _, file := range append(files, library...) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if formatted, err := Format(file, text); err != nil || string(formatted) != string(text) {
			t.Errorf("%s is not formatted: %v", file, err)
		}
		if warnings, err := Lint(file); err != nil || len(warnings) > 0 {
			t.Errorf("%s: %v, %v", file, warnings, err)
		}
	}
}

func TestLint(t *testing.T) {
	got, err := lint("x.star", []byte(`v = network("n")
load("@orch//presets.star", "sizes")
p = param("p", default = 1)
q = param("q", default = 1)  # lint: ignore param-doc
def f(x):
    y = 1
    if x:
        fail("no")
        x = 2
    1 + 1
    return x
stack("s", labels = {"p": str(p), "q": str(q)})
`))
	if err != nil {
		t.Fatal(err)
	}
	var rules []string
	for _, d := range got {
		rules = append(rules, d.Rule)
	}
	if s := strings.Join(rules, " "); s != "unused-value load-on-top load param-doc unused-variable unreachable no-effect" {
		t.Errorf("got %s", s)
	}
	if _, err := lint("x.star", []byte("x = undefined_thing")); err == nil || !strings.Contains(err.Error(), "undefined") {
		t.Errorf("got %v", err)
	}
}

func TestDoc(t *testing.T) {
	for name, want := range map[string]string{"": "health.http", "service": `replicas      int, default 1`, "health": "health.cmd(command", "stack": "stack(name, *, services = []"} {
		if got, err := Doc(name); err != nil || !strings.Contains(strings.ReplaceAll(got, "\n    ", " "), want) && !strings.Contains(strings.Join(strings.Fields(got), " "), strings.Join(strings.Fields(want), " ")) {
			t.Errorf("%s: %v\n%s", name, err, got)
		}
	}
	if _, err := Doc("servce"); err == nil || !strings.Contains(err.Error(), `did you mean "service"?`) {
		t.Errorf("got %v", err)
	}
	if s := Stubs(); !strings.Contains(s, "def service(name: str, *,") || !strings.Contains(s, "class health:") {
		t.Errorf("stubs: %.200s", s)
	}
}

package playbooks

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLoadForms(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"orch.mod.star":               "\"Root.\"\npackage(\"presets\")\n",
		"play/x.star":                 "load('./a.star', 'a')\nload('../up.star', 'b')\nload('//lib/c.star', 'c')\nload('@orch//presets.star', 'sizes')\nload('@presets//web/web.star', 'd')\nstack('s', labels = {'got': a + b + c + d})\n",
		"play/a.star":                 "a = 'a'",
		"up.star":                     "b = 'b'",
		"lib/c.star":                  "c = 'c'",
		"vendor/presets/web/web.star": "load('//base.star', 'base')\nd = base + file('../d.txt').strip()",
		"vendor/presets/base.star":    "base = 'd'",
		"vendor/presets/d.txt":        "!\n",
	})
	path := filepath.Join(dir, "play", "x.star")
	if _, err := Eval(t.Context(), Options{Path: path}); err == nil || !strings.Contains(err.Error(), "pinned in orch.sum") {
		t.Errorf("without orch.sum: %v", err)
	}
	sums, err := Sums(dir)
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, map[string]string{"orch.sum": sums})
	r, err := Eval(t.Context(), Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Spec.Labels["got"]; got != "abcd!" || r.Spec.Origin != "play/x.star:6:6" || len(r.Bundle.Files) != 8 {
		t.Errorf("got %q, %s, %d files", got, r.Spec.Origin, len(r.Bundle.Files))
	}
	if _, err := Eval(t.Context(), Options{Bundle: r.Bundle}); err != nil {
		t.Errorf("the bundle lacks something: %v", err)
	}
	write(t, dir, map[string]string{"vendor/presets/base.star": "base = 'e'"})
	if _, err := Eval(t.Context(), Options{Path: path}); err == nil || !strings.Contains(err.Error(), "vendor/presets/base.star was changed") {
		t.Errorf("a changed package: %v", err)
	}
}

func TestNoEscapeByLinks(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"out/secret.star": "x = 'out'", "in/ok.star": "x = 'in'", "in/dir/f": "f"})
	for name, to := range map[string]string{"link.star": "../out/secret.star", "abs.star": filepath.Join(dir, "out", "secret.star"), "up": "../out"} {
		if err := os.Symlink(to, filepath.Join(dir, "in", name)); err != nil {
			t.Skip(err)
		}
	}
	for text, want := range map[string]string{
		"load('./link.star', 'x')":       "outside the root",
		"load('./abs.star', 'x')":        "outside the root",
		"load('./up/secret.star', 'x')":  "outside the root",
		"file('up/secret.star')":         "outside the root",
		"file('dir')":                    "not a regular file",
		"load('./../in/ok.star', 'x')":   "outside the root",
		"load('.//../../x.star', 'x')":   "outside the root",
		"load('//../x.star', 'x')":       "outside the root",
		"file('//dir/../../out/secret')": "not a path",
		"load('/etc/x.star', 'x')":       "write",
		"load('@orch//../x.star', 'x')":  "outside the root",
		"load('./none.star', 'x')":       "there is no such file",
		"load('./x.star', 'x')":          "modules load one another: x.star -> x.star",
	} {
		write(t, dir, map[string]string{"in/x.star": text + "\nstack('s')"})
		if _, err := Eval(t.Context(), Options{Path: filepath.Join(dir, "in", "x.star")}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}

func TestLoadCyclesAreNamed(t *testing.T) {
	b := bundleOf("a.star", map[string]string{"a.star": "load('./b.star', 'x')", "b.star": "load('./c.star', 'x')", "c.star": "load('./b.star', 'x')"})
	_, err := Eval(t.Context(), Options{Bundle: b})
	if err == nil || !strings.Contains(err.Error(), "b.star -> c.star -> b.star") || !strings.Contains(err.Error(), "c.star:1:") {
		t.Errorf("got %v", err)
	}
}

// FuzzLoad: whatever a playbook loads and reads, nothing panics and nothing
// from outside of its root gets into the bundle.
func FuzzLoad(f *testing.F) {
	for _, seed := range []string{"./a.star", "//a.star", "@orch//presets.star", "../out.star", "./../out.star", "//../out.star", "@a//b.star", "./l/out.star", "./a\x00.star", "@//x.star", "././/a.star"} {
		f.Add(seed)
	}
	dir := f.TempDir()
	write(f, dir, map[string]string{"out.star": "OUT = 1", "in/a.star": "x = 1"})
	os.Symlink("..", filepath.Join(dir, "in", "l"))
	f.Fuzz(func(t *testing.T, ref string) {
		src, _, err := openDisk(filepath.Join(dir, "in", "a.star"))
		if err != nil {
			t.Fatal(err)
		}
		defer src.Close()
		for _, turn := range []func(from, ref string) (string, error){resolveLoad, refer} {
			for _, from := range []string{"a.star", "d/x.star", "@orch//presets.star", "@p//d/x.star"} {
				id, err := turn(from, ref)
				if err != nil {
					continue
				}
				if _, file := splitID(id); !filepath.IsLocal(filepath.FromSlash(file)) {
					t.Errorf("%q in %s is %q, outside", ref, from, id)
				}
				if text, err := src.read(id); err == nil && strings.Contains(string(text), "OUT") {
					t.Errorf("%q in %s reads %q", ref, from, text)
				}
			}
		}
	})
}

// FuzzEval: no source makes the evaluation panic, and none that evaluates is
// broken by formatting.
func FuzzEval(f *testing.F) {
	for _, seed := range []string{loopPlaybook[:200], "stack('s')", "param('a', default = [1])", "service('a', image = 'b', **{'x': 1})", "load('./x', 'y')", "fail(1)", "x = [\n1,2 ]\n# c\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		b := bundleOf("x.star", map[string]string{"x.star": text})
		_, err := Eval(t.Context(), Options{Bundle: b, MaxSteps: 10000})
		once, ferr := Format("x.star", []byte(text))
		if err == nil && ferr == nil {
			if twice, err := Format("x.star", once); err != nil || string(twice) != string(once) {
				t.Errorf("formatted again, %q becomes %q: %v", once, twice, err)
			}
		}
	})
}

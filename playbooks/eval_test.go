package playbooks

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"orch/engine/api"
)

func TestErrorsAreOnTheirLines(t *testing.T) {
	for _, file := range []string{"errors.star", "errors_rollout.star"} {
		t.Run(file, func(t *testing.T) { errorsOnLines(t, "testdata/"+file) })
	}
}

func errorsOnLines(t *testing.T, file string) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := map[int]*regexp.Regexp{}
	for i, line := range strings.Split(string(text), "\n") {
		if _, pattern, ok := strings.Cut(line, " ### "); ok {
			want[i+1] = regexp.MustCompile(pattern)
		}
	}
	_, err = Eval(t.Context(), Options{Path: file})
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v", err)
	}
	for _, d := range e.Diagnostics {
		re := want[d.Line]
		if re == nil || !re.MatchString(d.Message+" "+d.Hint) {
			t.Errorf("unexpected: %s", d)
		}
		if strings.Contains(d.Message, "*") && strings.Contains(d.Message, "builtins.") {
			t.Errorf("Go's type names in %q", d.Message)
		}
		delete(want, d.Line)
	}
	for line, re := range want {
		t.Errorf("line %d: no error that matches %q", line, re)
	}
}

func evalText(t testing.TB, text string, params map[string]any) (*Result, error) {
	return Eval(t.Context(), Options{
		Bundle: bundleOf("x.star", map[string]string{"x.star": text}),
		Params: params,
		// Steps decide, however slow the machine: the race detector takes 10 s
		// for the usual 50 million.
		MaxSteps: 1_000_000, MaxTime: time.Minute,
	})
}

func TestWholePlaybookErrors(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"no stack":        {`service("a", image = "x")`, "declares no stack"},
		"two stacks":      {"stack('a')\nstack('b')", "exactly one stack; the first is at x.star:1:6"},
		"syntax":          {"x = (", "x.star:1:6"},
		"undefined":       {"servce('a')", `undefined: servce`},
		"fail":            {"def f():\n    fail('no', 3)\nf()", "x.star:2:9: no 3"},
		"while":           {"while True:\n    pass", "while"},
		"recursion":       {"def f():\n    f()\nf()", "f called recursively"},
		"clock":           {"time.now()", "no .now"},
		"steps":           {"def f():\n    for i in range(1000000000):\n        pass\nf()", "more than 1000000 steps"},
		"param computed":  {"n = 'a'\nparam(n)", "x.star:2:7: param's name must be a literal"},
		"param aliased":   {"p = param\np('a')", "param can only be called"},
		"compose":         {"compose('a.yml')", "not supported yet"},
		"cycle":           {"a = service('a', image = 'x')\nb = service('b', image = 'x', depends_on = [ready(a)])\na2 = a.with_(depends_on = [ready(b)])\nstack('s', services = [a2, b])", "wait for one another"},
		"url elsewhere":   {"a = service('a', image = 'x')\nb = service('b', image = 'x', env = {'A': a.url(80)})\nstack('s', services = [b])", `uses the address of "a", which is not in the stack`},
		"url of runtimes": {"a = service('a', image = 'x')\nb = service('b', command = ['b'], env = {'A': a.url(80)})\nstack('s', services = [a, b])", "give \"a\" ports = [80]"},
		"url in command":  {"a = service('a', image = 'x')\nb = service('b', image = 'x', command = [a.url(80)])", "not in command"},
		"secret in env":   {"service('a', image = 'x', env = {'P': secret('p', generate = 32)})", "give the program its .path"},
		"same port":       {"stack('s', services = [service(n, image = 'x', ports = [port(80, publish = 80)]) for n in ['a', 'b']])", "publishes already"},
		"two volumes":     {"stack('s', services = [service(n, image = 'x', mounts = [mount(volume('v', driver = n), '/v')]) for n in ['a', 'b']])", "declared differently"},
		"load":            {"load('x.star', 'y')", `write "./x.star"`},
		"load up":         {"load('../x.star', 'y')", "outside the root"},
		"no package":      {"load('@a/x.star', 'y')", "@name//path"},
		"library":         {"load('@orch//none.star', 'y')", "doesn't hold it"},
		"too many":        {"for i in range(99):\n    port(0, name = str(i))\n    port(-i)", "too many errors"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := evalText(t, c.text, nil)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestErrorsShowLineCaretAndTrace(t *testing.T) {
	_, err := evalText(t, "def web(n):\n    return service(n, imag = 1)\n\nweb('a')\n", nil)
	want := `x.star:2:23: service has no parameter "imag"
        return service(n, imag = 1)
                          ^
    did you mean "image"?
    called from:
      x.star:4:4 in the playbook`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestParams(t *testing.T) {
	text := `n = param("n", default = 3, doc = "how many")
names = param("names", default = ["a"])
on = param("on", default = False)
must = param("must")
none = param("none", default = None)
level = param("level", default = "info", choices = ["info", "debug"])
ratio = param("ratio", default = 0.5)
stack("s", labels = {"all": "%d %s %s %s %s %s %s" % (n, names, on, must, none, level, ratio)})`
	r, err := evalText(t, text, map[string]any{"n": "7", "names": "x,y", "on": "true", "must": "m", "ratio": 1})
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Spec.Labels["all"]; got != `7 ["x", "y"] True m None info 1.0` {
		t.Errorf("got %q", got)
	}
	again, err := Eval(t.Context(), Options{Bundle: r.Bundle, ParamsJSON: r.ParamsJSON})
	if err != nil || !proto.Equal(again.Spec, r.Spec) || again.ParamsJSON != r.ParamsJSON {
		t.Errorf("ParamsJSON %s doesn't stand for the params: %v", r.ParamsJSON, err)
	}
	for want, params := range map[string]map[string]any{
		`--set must=...`:       {},
		`did you mean "must"?`: {"mst": 1, "must": 2},
		`want an int, not "x"`: {"n": "x", "must": 2},
		`"warn" is none of`:    {"level": "warn", "must": 2},
		`no param "unlike"`:    {"unlike": "x", "must": 2},
		"want a bool, not 3":   {"on": 3, "must": 2},
	} {
		if _, err := evalText(t, text, params); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: got %v, want %q", params, err, want)
		}
	}
	dir := t.TempDir()
	write(t, dir, map[string]string{"x.star": text})
	list, err := Params(filepath.Join(dir, "x.star"))
	if err != nil || len(list) != 7 {
		t.Fatalf("got %v, %v", list, err)
	}
	if got := fmt.Sprint(list[0], list[3]); got != "{n int 3 false  how many 1} {must string  true   4}" {
		t.Errorf("got %s", got)
	}
}

func TestValues(t *testing.T) {
	r, err := evalText(t, `
pw = secret("pw", generate = 32)
db = service("db", image = "db:1", secrets = [pw], env = {"PW_FILE": pw.path, "N": 3, "B": True, "GONE": None})
big = db.with_(name = "big", replicas = 5, secrets = None)
web = service("web", command = ["web"], ports = [port(80, publish = 8080)])
lone = volume("lone")
print(pw, db, db.name, db.image, db.replicas, big.replicas, db.url(1, scheme = "tcp"), db.host)
stack("s", services = [db, big, web], jobs = [job("j", image = "j")])
`, nil)
	if err != nil {
		t.Fatal(err)
	}
	by := map[string]*api.ServiceSpec{}
	for _, s := range r.Spec.Services {
		by[s.Name] = s
	}
	if e := by["db"].Task.Env; len(e) != 3 || e["PW_FILE"] != "/run/secrets/pw" || e["N"] != "3" || e["B"] != "true" {
		t.Errorf("env is %v", e)
	}
	if by["big"].Replicas != 5 || len(by["big"].Task.Secrets) != 0 || by["big"].Task.Image != "db:1" || len(by["db"].Task.Secrets) != 1 {
		t.Errorf("with_ gave %v of %v", by["big"], by["db"])
	}
	if w := by["web"]; w.Task.Runtime != "process" || w.Update.Order != "stop-first" || w.Task.HostPorts[0].Port != 80 || by["db"].Update.Order != "start-first" {
		t.Errorf("web is %v", w)
	}
	if by["j"].Mode != "job" || by["j"].Job.Timeout.AsDuration().Hours() != 1 || len(r.Spec.Networks) != 1 || r.Spec.Networks[0].Name != "default" {
		t.Errorf("the spec is %v", r.Spec)
	}
	if len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0].Message, `volume "lone" is never part of the stack`) || r.Warnings[0].Line != 6 {
		t.Errorf("warnings: %v", r.Warnings)
	}
}

// Services drawn at random: the bundle evaluates to what the disk did, and
// the cache changes nothing.
func TestBundleAndCacheGiveTheSameSpec(t *testing.T) {
	cache := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		var b strings.Builder
		n := rapid.IntRange(0, 5).Draw(rt, "services")
		fmt.Fprintf(&b, "load('./lib/l.star', 'make')\nall = []\n# %s\n", strings.Repeat("x", worthCaching))
		for i := range n {
			fmt.Fprintf(&b, "all.append(make('s%d', replicas = %d, env = {%q: %q}))\n", i, rapid.IntRange(0, 9).Draw(rt, "replicas"),
				rapid.StringMatching(`[A-Z]{1,4}`).Draw(rt, "key"), rapid.StringMatching(`[ -~]{0,9}`).Draw(rt, "value"))
		}
		b.WriteString("stack('s', services = all)\n")
		dir := t.TempDir()
		write(t, dir, map[string]string{"x.star": b.String(), "lib/l.star": "text = file('f.txt')\ndef make(n, **kw):\n    return service(n, image = text.strip(), **kw)\n", "lib/f.txt": "img:1\n"})
		disk, err := Eval(t.Context(), Options{Path: filepath.Join(dir, "x.star")})
		if err != nil {
			rt.Fatal(err)
		}
		for range 2 { // the second from the cache
			again, err := Eval(t.Context(), Options{Bundle: disk.Bundle, CacheDir: cache})
			if err != nil || !proto.Equal(again.Spec, disk.Spec) || again.Bundle.Hash != disk.Bundle.Hash {
				rt.Fatalf("the bundle gives another spec: %v", err)
			}
		}
	})
	if files, _ := filepath.Glob(filepath.Join(cache, "*.starc")); len(files) == 0 || len(files) > maxCached {
		t.Errorf("%d programs in the cache", len(files))
	}
}

func TestDamagedCacheIsIgnored(t *testing.T) {
	cache := t.TempDir()
	o := Options{Bundle: bundleOf("x.star", map[string]string{"x.star": "stack('s')\n#" + strings.Repeat("x", worthCaching)}), CacheDir: cache}
	for range 2 {
		if _, err := Eval(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		files, _ := filepath.Glob(filepath.Join(cache, "*.starc"))
		if len(files) != 1 {
			t.Fatal(files)
		}
		if err := os.WriteFile(files[0], []byte(strings.Repeat("damaged", 100)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

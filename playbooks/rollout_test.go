package playbooks

import (
	"slices"
	"strings"
	"testing"

	"orch/builtins"
	"orch/engine/api"
	"orch/engine/rollout"
)

func TestTheLibraryHasOneName(t *testing.T) {
	if builtins.Library != rollout.Library {
		t.Errorf("builtins say %q, the engine %q", builtins.Library, rollout.Library)
	}
}

func serviceOf(t *testing.T, spec *api.StackSpec, name string) *api.ServiceSpec {
	t.Helper()
	i := slices.IndexFunc(spec.GetServices(), func(s *api.ServiceSpec) bool { return s.Name == name })
	if i < 0 {
		t.Fatalf("no service %q in %v", name, spec)
	}
	return spec.Services[i]
}

func TestRolloutPolicies(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"x.star": `
load("@orch//rollout.star", "canary")
def mine(r, *, a, b = 2, **kwargs):
    return r.succeed()
first, last = [job(n, image = "x") for n in ["first", "last"]]
def web(n, u): return service(n, image = "x", update = u)
stack("s", services = [
    web("none", None),
    web("plain", rollout(parallelism = "25%", min_available = 0, max_surge = "50%", deadline = "1h", supersede = "queue", before = [first], after = [last])),
    web("mine", rollout(strategy = mine, params = {"z": (1, 1.0, None), "a": {"k": "<é>", "b": True}}, order = "stop-first", on_failure = "pause")),
    web("lib", rollout(strategy = canary)),
], jobs = [first, last, job("other", image = "x"), job("called", image = "x", on_demand = True)], on_failure = "continue", max_parallel = 3)
`})
	r, err := Eval(t.Context(), Options{Path: dir + "/x.star"})
	if err != nil {
		t.Fatal(err)
	}
	if u := serviceOf(t, r.Spec, "none").Update; u.Strategy != rollout.Library || u.ParamsJson != "" || u.Parallelism != "1" {
		t.Errorf("none: %v", u)
	}
	if s := serviceOf(t, r.Spec, "none"); s.Rollback.Strategy != "" {
		t.Errorf("a rollback has strategy %q", s.Rollback.Strategy)
	}
	u := serviceOf(t, r.Spec, "plain").Update
	if u.Strategy != rollout.Library || u.Parallelism != "25%" || u.MinAvailable != "0" || u.MaxSurge != "50%" || u.Deadline.AsDuration().Hours() != 1 ||
		u.Supersede != "queue" || !slices.Equal(u.Before, []string{"first"}) || !slices.Equal(u.After, []string{"last"}) {
		t.Errorf("plain: %v", u)
	}
	u = serviceOf(t, r.Spec, "mine").Update
	if u.Strategy != "x.star:mine" || u.ParamsJson != `{"a":{"b":true,"k":"<é>"},"z":[1,1.0,null]}` || u.Order != "stop-first" || u.OnFailure != "pause" || u.Parallelism != "" {
		t.Errorf("mine: %v", u)
	}
	if u = serviceOf(t, r.Spec, "lib").Update; u.Strategy != "@orch//rollout.star:canary" || u.ParamsJson != "{}" {
		t.Errorf("lib: %v", u)
	}
	for name, want := range map[string]bool{"first": true, "last": true, "other": false, "called": true} {
		if got := serviceOf(t, r.Spec, name).Job.OnDemand; got != want {
			t.Errorf("job %q: on demand is %v", name, got)
		}
	}
	if r.Spec.OnFailure != "continue" || r.Spec.MaxParallel != 3 {
		t.Errorf("the stack is %v", r.Spec)
	}
}

func TestJobsOfRollouts(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"not in the stack": {"j = job('j', image = 'x')\nw = service('w', image = 'x', update = rollout(before = [j]))\nstack('s', services = [w])",
			`x.star:2:40: service "w": its rollout runs job "j" (before), which is not in the stack`},
		"waited for": {"j = job('j', image = 'x')\nw = service('w', image = 'x', update = rollout(after = [j]))\nv = service('v', image = 'x',\n  depends_on = [done(j)])\nstack('s', services = [w, v], jobs = [j])",
			`x.star:4:17: service "v" waits for job "j", which runs only when a rollout runs it`},
		"on demand, waited for": {"j = job('j', image = 'x', on_demand = True)\nstack('s', services = [service('v', image = 'x', depends_on = [done(j)])], jobs = [j])", `runs only when a rollout runs it`},
		"scheduled":             {"j = job('j', image = 'x', schedule = '1 2 3 4 5')\nstack('s', services = [service('w', image = 'x', update = rollout(after = [j]))], jobs = [j])", `x.star:1:5: job "j" has a schedule, but a rollout runs it`},
	} {
		if _, err := evalText(t, c.text, nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

func TestBundlesHoldTheirStrategies(t *testing.T) {
	dir := t.TempDir()
	holds := func(text string) bool {
		write(t, dir, map[string]string{"x.star": text})
		r, err := Eval(t.Context(), Options{Path: dir + "/x.star"})
		if err != nil {
			t.Fatal(err)
		}
		again, err := Eval(t.Context(), Options{Bundle: r.Bundle})
		if err != nil || again.Bundle.Hash != r.Bundle.Hash {
			t.Errorf("the bundle became another: %v", err)
		}
		return slices.ContainsFunc(r.Bundle.Files, func(f *api.BundleFile) bool { return f.Path == "@orch//rollout.star" })
	}
	if !holds("stack('s', services = [service('w', image = 'x')])") {
		t.Error("no library for a plain rollout")
	}
	if holds("def f(r): return r.succeed()\nstack('s', services = [service('w', image = 'x', update = rollout(strategy = f))], jobs = [job('j', image = 'x')])") {
		t.Error("a library that nothing uses")
	}
}

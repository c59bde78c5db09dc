package playbooks

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	"orch/builtins"
	"orch/engine/api"
	"orch/engine/rollout"
)

// fakeEngine carries out ops on paper.
type fakeEngine struct {
	q      rollout.Question
	groups map[string][]string
	made   int
}

// newFake begins a rollout of app/web with n replicas in three zones.
func newFake(n int, policy *api.RolloutPolicy) *fakeEngine {
	begin := &api.Op{Seq: 1, Kind: "begin", Ok: true, Replicas: int32(n), Places: map[string]string{}}
	for _, z := range []string{"b", "a", "c"} {
		begin.Nodes = append(begin.Nodes, &api.Node{Id: "node-" + z, Name: "host-" + z, Labels: map[string]string{"zone": z}})
	}
	for i := range n {
		id := fmt.Sprintf("app/web.%d", i+1)
		begin.Slots = append(begin.Slots, id)
		begin.Places[id] = begin.Nodes[i%3].Id
	}
	spec := func(image string) *api.ServiceSpec {
		return &api.ServiceSpec{Name: "web", Mode: "replicated", Replicas: int32(n), Task: &api.TaskSpec{Image: image, Env: map[string]string{"B": "2", "A": "1", "C": "3"}, Drain: durationpb.New(60e9)}}
	}
	return &fakeEngine{q: rollout.Question{Journal: []*api.Op{begin}, Rollout: &api.Rollout{Id: "app/web~1", ServiceId: "app/web", FromVersion: "v1", ToVersion: "v2",
		Policy: policy, From: spec("web:1"), To: spec("web:2"), ApiVersion: rollout.APIVersion}}, groups: map[string][]string{}}
}

// end notes an op's outcome as the engine does.
func (f *fakeEngine) end(op *api.Op, ok bool) {
	op.Seq, op.Ok, op.EndedAt = uint64(len(f.q.Journal)+1), ok, nil
	if !ok {
		op.Reason = op.Kind + " was not ok"
	}
	switch op.Kind {
	case "surge":
		for ok && len(f.groups[op.Group]) < int(op.Count) {
			f.made++
			f.groups[op.Group] = append(f.groups[op.Group], fmt.Sprintf("app/web.s%d", f.made))
		}
		op.Slots = slices.Clone(f.groups[op.Group])
	case "adopt":
		op.Slots = f.groups[op.Group]
		for i := range min(len(op.Slots), len(f.q.Journal[0].Slots)) {
			op.Removed = append(op.Removed, f.q.Journal[0].Slots[i])
		}
	case "wait_healthy":
		if !ok {
			if op.Group != "" {
				op.Slots = f.groups[op.Group]
			}
			op.Failed = op.Slots[:1]
		}
	}
	f.q.Journal = append(f.q.Journal, op)
}

func ends(op *api.Op) bool { return op.Kind == "succeed" || op.Kind == "fail" }

// play asks until the strategy ends or errs; ok says how each op goes.
func (f *fakeEngine) play(s rollout.Strategy, ok func(n int, op *api.Op) bool) error {
	for n := 1; ; n++ {
		if n > 500 {
			return fmt.Errorf("it doesn't end")
		}
		op, err := s.Next(f.q)
		if err != nil {
			return err
		}
		f.end(op, ok(n, op))
		if ends(op) {
			return nil
		}
	}
}

// text is the journal as calls, one a line.
func (f *fakeEngine) text() string {
	var lines []string
	for _, op := range f.q.Journal[1:] {
		line := builtins.OpText(op)
		if !op.Ok {
			line += " no"
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

func always(int, *api.Op) bool { return true }

// strategyOfText is a rollout whose strategy is f in x.star.
func strategyOfText(n int, text string) *fakeEngine {
	f := newFake(n, &api.RolloutPolicy{Strategy: "x.star:f", ParamsJson: "{}", Order: "stop-first"})
	f.q.Bundle = bundleOf("x.star", map[string]string{"x.star": text})
	return f
}

func TestOps(t *testing.T) {
	for name, c := range map[string]struct {
		body string // of f(r)
		want string
		no   string // kinds whose ops fail
	}{
		"values": {`r.event("%s %s %d %s %s %s %s %s" % (r.service, r.mode, r.replicas, r.old.image, r.new.image, r.old.version + r.new.version, r.new.env.keys(), r.new.drain))`,
			`event("web replicated 4 web:1 web:2 v1v2 [\"A\", \"B\", \"C\"] 1m")`, ""},
		"replace":      {"r.replace(r.slots()[:2])\n    r.replace(['web.3'], 'start-first')\n    r.replace([])", "replace([\"web.1\", \"web.2\"], order = \"stop-first\")\nreplace([\"web.3\"], order = \"start-first\")", ""},
		"wait":         {"d = r.wait_healthy(r.slots(), min_healthy = '1s', timeout = '2m', max_failed = 1)\n    r.event('%s %s %s' % (d.ok, d.reason, d.failed))", "wait_healthy([\"web.1\", \"web.2\", \"web.3\", \"web.4\"], min_healthy = \"1s\", max_failed = 1, timeout = \"2m\") no\nevent(\"False wait_healthy was not ok [\\\"web.1\\\"]\")", "wait_healthy"},
		"surge":        {"d = r.surge('new', '26%')\n    r.event(str(d.slots))\n    r.wait_healthy('new')\n    r.wait_healthy(d.slots)\n    d = r.adopt('new')\n    r.event('%s %s %s' % (d.slots, d.removed, r.slots()))\n    r.drop('new')", "surge(\"new\", 2)\nevent(\"[\\\"web.s1\\\", \\\"web.s2\\\"]\")\nwait_healthy(\"new\")\nwait_healthy([\"web.s1\", \"web.s2\"])\nadopt(\"new\")\nevent(\"[\\\"web.s1\\\", \\\"web.s2\\\"] [\\\"web.1\\\", \\\"web.2\\\"] [\\\"web.3\\\", \\\"web.4\\\", \\\"web.s1\\\", \\\"web.s2\\\"]\")\ndrop(\"new\")", ""},
		"surge refuse": {"d = r.surge('new', 1)\n    r.event(d.reason)", "surge(\"new\", 1) no\nevent(\"surge was not ok\")", "surge"},
		"order":        {"r.event(str(r.slots(order = 'node.labels.zone')))", `event("[\"web.2\", \"web.1\", \"web.4\", \"web.3\"]")`, ""},
		"batches":      {"r.event(str(r.batches()))\n    r.event(str(r.batches('26%')))\n    r.event(str(r.batches([1, '50%'])))\n    r.event(str(r.batches(3, slots = ['web.4', 'web.2'])))", "event(\"[[\\\"web.1\\\"], [\\\"web.2\\\"], [\\\"web.3\\\"], [\\\"web.4\\\"]]\")\nevent(\"[[\\\"web.1\\\", \\\"web.2\\\"], [\\\"web.3\\\", \\\"web.4\\\"]]\")\nevent(\"[[\\\"web.1\\\"], [\\\"web.2\\\", \\\"web.3\\\"], [\\\"web.4\\\"]]\")\nevent(\"[[\\\"web.4\\\", \\\"web.2\\\"]]\")", ""},
		"batches by":   {"r.event(str(r.batches(by = 'node.labels.zone')))\n    r.event(str(r.batches(1, by = 'node.hostname')))", "event(\"[[\\\"web.2\\\"], [\\\"web.1\\\", \\\"web.4\\\"], [\\\"web.3\\\"]]\")\nevent(\"[[\\\"web.2\\\"], [\\\"web.1\\\"], [\\\"web.4\\\"], [\\\"web.3\\\"]]\")", ""},
		"probes": {"r.check(probe.http('https://x/ping', status = 204))\n    r.analyze(probe.metric('http://p', 'q', below = 2, above = 1), interval = '1s', count = 3, fail_limit = 1)\n    r.check(probe.influx('${orch:url:http:influx:8086}', 'd', 'q', above = -1))\n    r.check(probe.exec(['a', 'b']))",
			"check(probe.http(\"https://x/ping\", status = 204))\nanalyze(probe.metric(\"http://p\", \"q\", below = 2, above = 1), interval = \"1s\", count = 3, fail_limit = 1)\ncheck(probe.influx(\"${orch:url:http:influx:8086}\", \"d\", \"q\", above = -1))\ncheck(probe.exec([\"a\" \"b\"]))", ""},
		"others":    {"r.pause('90s')\n    r.wait_signal()\n    r.wait_signal('go', timeout = '1h')\n    r.run('migrate')\n    r.run(job('j', image = 'x'))", "pause(\"1m30s\")\nwait_signal(\"promote\")\nwait_signal(\"go\", timeout = \"1h\")\nrun(\"migrate\")\nrun(\"j\")", ""},
		"fail":      {"print('dropped')\n    return r.fail()", `fail("rollback")`, ""},
		"fail why":  {"return r.fail('pause', 'because')", `fail("pause", "because")`, ""},
		"file":      {"r.event(file('x.star')[:3])", `event("def")`, ""},
		"no change": {"for i in range(3):\n        r.pause('%ds' % i)", "pause(\"0s\")\npause(\"1s\")\npause(\"2s\")", ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := strategyOfText(4, "def f(r):\n    "+c.body+"\n    return r.succeed()\n")
			if err := f.play(&Strategies{}, func(_ int, op *api.Op) bool { return op.Kind != c.no }); err != nil {
				t.Fatal(err)
			}
			if got := strings.TrimSuffix(f.text(), "\nsucceed()"); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
			if got := f.q.Journal[1]; !strings.HasPrefix(got.Origin, "x.star:") {
				t.Errorf("origin %q", got.Origin)
			}
		})
	}
}

func TestOpsHoldIdsAndDefaults(t *testing.T) {
	f := strategyOfText(2, "def f(r):\n    r.replace(['web.2'])\n    r.wait_healthy(['web.1'])\n    r.fail('pause', 'why')")
	if err := f.play(&Strategies{}, always); err != nil {
		t.Fatal(err)
	}
	j := f.q.Journal
	if j[1].Slots[0] != "app/web.2" || j[1].Origin != "x.star:2:14" || j[2].Timeout != nil || j[2].Duration.AsDuration() != 0 || j[3].Policy != "pause" || j[3].Text != "why" || j[3].Reason != "why" {
		t.Errorf("got %v", j)
	}
}

func TestStrategyErrors(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"raise":       {"def g(n):\n    return [][n]\ndef f(r):\n    g(1)\n", "x.star:2:14: index 1 out of range: empty list\n        return [][n]\n                 ^\n    called from:\n      x.star:4:6 in f"},
		"fail":        {"def f(r):\n    fail('no', 2)\n", "x.star:2:9: no 2"},
		"unended":     {"def f(r):\n    return 1\n", "x.star:1:1: strategy f returned without an end: every path must come to r.succeed() or r.fail()"},
		"no function": {"def g(r):\n    pass\n", `x.star has no function "f"`},
		"no def":      {"f = 3", `x.star has no function "f"`},
		"syntax":      {"def f(r)", "x.star:1:9"},
		"slot":        {"def f(r):\n    r.replace(['web.9'])\n", "x.star:2:15: r.replace: there is no slot \"web.9\"\n        r.replace(['web.9'])\n                  ^\n    did you mean"},
		"twice":       {"def f(r):\n    r.wait_healthy(['web.1', 'web.1'])\n", `"web.1" is listed twice`},
		"group":       {"def f(r):\n    r.surge('new', 1)\n    r.adopt('nwe')\n", `there was no surge "nwe"`},
		"group name":  {"def f(r):\n    r.surge('New', 1)\n", `use 1 to 63 of a-z`},
		"slot alone":  {"def f(r):\n    r.wait_healthy('web.1')\n", "put a slot in [ ]"},
		"type":        {"def f(r):\n    r.pause(3)\n", `x.star:2:13: r.pause: duration must be a duration such as "10s", not 3 (int)`},
		"keyword":     {"def f(r):\n    r.wait_healthy(r.slots(), min_helthy = '1s')\n", `did you mean "min_healthy"?`},
		"attribute":   {"def f(r):\n    r.repace([])\n", "r has no .repace field or method\n        r.repace([])\n         ^\n    did you mean \".replace\"?"},
		"size":        {"def f(r):\n    r.batches(0)\n", "must be a number of tasks"},
		"sizes":       {"def f(r):\n    r.batches([])\n", "is an empty list"},
		"key":         {"def f(r):\n    r.slots('zone')\n", "a node key such as node.labels.zone"},
		"key op":      {"def f(r):\n    r.batches(by = 'node.os == linux or node.os')\n", "a node key such as node.labels.zone"},
		"traffic":     {"def f(r):\n    r.traffic(new = 101)\n", "x.star:2:15: r.traffic: new must be an int from 0 to 100, not 101"},
		"probe":       {"def f(r):\n    r.check('http://x')\n", "must be a probe"},
		"bad probe":   {"def f(r):\n    r.check(probe.http('x'))\n", "must be a URL"},
		"job":         {"def f(r):\n    r.run(service('w', image = 'x'))\n", "must be a job or its name"},
		"policy":      {"def f(r):\n    r.fail('rolback')\n", `did you mean "rollback"?`},
		"clock":       {"def f(r):\n    time.now()\n", "no .now"},
		"load":        {"load('@orch//none.star', 'x')\ndef f(r):\n    pass\n", "the library has only"},
		"module":      {"service('Web', image = 'x')\ndef f(r):\n    return r.succeed()\n", "x.star:1:9: service: name \"Web\""},
		"r as key":    {"def f(r):\n    {r: 1}\n", "r can't be a key"},
		"r changed":   {"def f(r):\n    r.new.env['x'] = 'y'\n", "frozen"},
		"steps":       {"def f(r):\n    for i in range(1000000000):\n        pass\n", "the strategy took more than 5000000 steps"},
		"stack":       {"def f(r):\n    stack('s')\n", "x.star:2:5: stack: a strategy can't declare a stack"},
		"no text":     {"def f(r):\n    r.event('\\xff')\n", "UTF-8"},
		"recursion":   {"def f(r):\n    f(r)\n", "called recursively"},
	} {
		t.Run(name, func(t *testing.T) {
			err := strategyOfText(3, c.text).play(&Strategies{MaxTime: time.Minute}, always)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got\n%v\nwant\n%s", err, c.want)
			}
		})
	}
}

func TestStrategyTakesTooLong(t *testing.T) {
	f := strategyOfText(1, "def f(r):\n    x = 'a' * 100000\n    for i in range(1000000):\n        x.count('aaaaaaaaaaaaaaaaaaab')\n")
	// In line 4, wherever it was there.
	if _, err := (&Strategies{MaxTime: 20 * time.Millisecond}).Next(f.q); err == nil || !strings.Contains(err.Error(), "x.star:4:") || !strings.Contains(err.Error(), "the strategy took longer than 20ms") {
		t.Errorf("got %v", err)
	}
}

func TestDivergence(t *testing.T) {
	before := strategyOfText(2, "def f(r):\n    r.replace(['web.1'])\n    r.pause('9s')\n    r.succeed()\n")
	if err := before.play(&Strategies{}, always); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ text, want string }{
		"argument": {"def f(r):\n    r.replace(['web.1'])\n    r.pause('0s')\n", `the strategy has diverged at op 3 (x.star:3:12): it asks for pause("0s") where the journal has pause("9s")`},
		"slots":    {"def f(r):\n    r.replace(['web.2'])\n", `at op 2 (x.star:2:14): it asks for replace(["web.2"], order = "stop-first") where the journal has replace(["web.1"], order = "stop-first")`},
		"kind":     {"def f(r):\n    r.succeed()\n", `it asks for succeed() where the journal has replace(`},
		"less":     {"def f(r):\n    r.replace(['web.1'])\n", `at op 3: it returns where the journal has pause("9s")`},
		"way out":  {"def f(r):\n    r.event('x')\n", "`orch rollout abort app/web`, or begin it anew with `orch rollout retry app/web`"},
	} {
		f := strategyOfText(2, c.text)
		f.q.Journal = before.q.Journal
		if _, err := (&Strategies{}).Next(f.q); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %s", name, err, c.want)
		}
	}
	if _, err := (&Strategies{}).Next(before.q); err == nil || !strings.Contains(err.Error(), "strategy f has come to its end, r.succeed(), before") {
		t.Errorf("after the end: %v", err)
	}
}

// What the engine adds to an op is no divergence.
func TestTheEnginesFieldsDontDiverge(t *testing.T) {
	f := strategyOfText(2, "def f(r):\n    r.surge('new', 1)\n    r.wait_healthy('new')\n    r.check(probe.http('http://x'))\n    r.wait_healthy(['web.2', 'web.1'])\n    r.succeed()\n")
	if err := f.play(&Strategies{}, always); err != nil {
		t.Fatal(err)
	}
	j := f.q.Journal[:len(f.q.Journal)-1]
	for _, op := range j[1:] {
		op.Origin, op.By, op.Deadline, op.Reason = "", "somebody", nil, "whatever"
	}
	j[2].Slots, j[3].Probe.Origin, j[3].Samples = []string{"app/web.s1"}, "elsewhere", []*api.Sample{{Ok: true}}
	slices.Sort(j[4].Slots)
	f.q.Journal = j
	if op, err := (&Strategies{}).Next(f.q); err != nil || op.Kind != "succeed" {
		t.Errorf("got %v, %v", op, err)
	}
}

func TestStrategyOfTheRootPlaybook(t *testing.T) {
	f := newFake(3, &api.RolloutPolicy{Strategy: "x.star:mine", ParamsJson: `{"by":"1s","share":1.0}`})
	f.q.Bundle = bundleOf("x.star", map[string]string{"sub/m.star": "def step(r, d):\n    r.pause(d)\n", "x.star": `
load("//sub/m.star", "step")
n = param("n", default = 1)
must = param("must")
def mine(r, by, share):
    step(r, by)
    r.check(probe.http(web.url(80) + "/%d/%s/%s" % (n, must, share)))
    return r.succeed()
web = service("web", image = "x", update = rollout(strategy = mine, params = {"by": "1s", "share": 1.0}))
stack("app", services = [web])
`})
	f.q.ParamsJson = `{"must": "m", "n": 7}`
	if err := f.play(&Strategies{}, always); err != nil {
		t.Fatal(err)
	}
	want := "pause(\"1s\")\ncheck(probe.http(\"${orch:url:http:web:80}/7/m/1.0\"))\nsucceed()"
	if got := f.text(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := f.q.Journal[1].Origin; got != "sub/m.star:2:12" {
		t.Errorf("origin %s", got)
	}
	f.q.ParamsJson, f.q.Journal = "", f.q.Journal[:1]
	if _, err := (&Strategies{}).Next(f.q); err == nil || !strings.Contains(err.Error(), `"must" has no default`) {
		t.Errorf("without params: %v", err)
	}
}

func TestOldAndOddQuestions(t *testing.T) {
	f := newFake(3, &api.RolloutPolicy{}) // of a spec before there were strategies
	f.q.Bundle = bundleOf("x.star", map[string]string{"x.star": "stack('s')"})
	if err := f.play(&Strategies{}, always); err != nil || len(f.q.Journal) != 8 {
		t.Errorf("%v\n%s", err, f.text())
	}
	f.q.Rollout.ApiVersion = rollout.APIVersion + 1
	if _, err := (&Strategies{}).Next(f.q); err == nil || !strings.Contains(err.Error(), "upgrade it") {
		t.Errorf("newer ops: %v", err)
	}
	f = newFake(3, &api.RolloutPolicy{})
	f.q.Journal = nil
	if _, err := (&Strategies{}).Next(f.q); err == nil || !strings.Contains(err.Error(), "begin") {
		t.Errorf("no begin: %v", err)
	}
}

// libraryCases are the strategies of @orch//rollout.star, each with params that
// make it take its other paths.
var libraryCases = []struct{ name, params string }{
	{"rolling", ""}, {"rolling", `{"parallelism":"50%","delay":"5s","max_failure_ratio":0.4,"on_failure":"continue"}`}, {"rolling", `{"on_failure":"pause","delay":"0m"}`},
	{"canary", "{}"}, {"canary", `{"count":"10%","promote":true,"parallelism":2}`}, {"checked", "{}"},
	{"blue_green", "{}"}, {"blue_green", `{"bake":"1m","promote":true}`},
	{"progressive", "{}"}, {"progressive", `{"weights":[10,50]}`}, {"measured", "{}"},
	{"one_zone_at_a_time", "{}"}, {"one_zone_at_a_time", `{"delay":"1s","key":"node.hostname"}`}, {"all_at_once", "{}"},
}

func fakeOfLibrary(n, replicas int) *fakeEngine {
	l := libraryCases[n]
	f := newFake(replicas, &api.RolloutPolicy{Strategy: "@orch//rollout.star:" + l.name, ParamsJson: l.params, Order: "start-first", Parallelism: "1", OnFailure: "rollback"})
	if l.name == "checked" || l.name == "measured" {
		f.q.Rollout.Policy.Strategy = "x.star:" + l.name
		f.q.Bundle = bundleOf("x.star", map[string]string{"x.star": `
load("@orch//rollout.star", "canary", "progressive")
def checked(r): return canary(r, check = probe.metric("http://p", "q", below = 1))
def measured(r): return progressive(r, check = probe.http("http://p"))
`})
	}
	return f
}

// TestLibrary: every strategy ends, whatever its ops come to, and a replay of
// any part of its journal asks for what came next, also in a fresh process.
func TestLibrary(t *testing.T) {
	shared := &Strategies{}
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(0, len(libraryCases)-1).Draw(rt, "strategy")
		f := fakeOfLibrary(n, rapid.IntRange(0, 7).Draw(rt, "replicas"))
		oks := rapid.SliceOfN(rapid.IntRange(0, 9), 1, 40).Draw(rt, "oks")
		if err := f.play(shared, func(i int, _ *api.Op) bool { return oks[i%len(oks)] > 0 }); err != nil {
			rt.Fatalf("%v: %v\n%s", libraryCases[n], err, f.text())
		}
		all := f.q.Journal
		for i := 1; i < len(all); i++ {
			s := shared
			if i == len(all)-1 {
				s = &Strategies{}
			}
			f.q.Journal = all[:i]
			if op, err := s.Next(f.q); err != nil || builtins.OpText(op) != builtins.OpText(all[i]) || op.Origin != all[i].Origin {
				rt.Fatalf("%v: op %d is %v, %v; it was %v", libraryCases[n], i, op, err, all[i])
			}
		}
	})
}

// TestLibraryStops: each op that isn't ok where it matters ends the rollout
// with its reason.
func TestLibraryStops(t *testing.T) {
	s := &Strategies{}
	for n, l := range libraryCases {
		f := fakeOfLibrary(n, 6)
		if err := f.play(s, always); err != nil {
			t.Fatalf("%v: %v", l, err)
		}
		if last := f.q.Journal[len(f.q.Journal)-1]; last.Kind != "succeed" {
			t.Errorf("%v ends with %v", l, last)
		}
		for i, op := range f.q.Journal {
			if i == 0 || op.Kind == "pause" || op.Kind == "check" || ends(op) || strings.Contains(l.params, "continue") {
				continue
			}
			g := fakeOfLibrary(n, 6)
			if err := g.play(s, func(k int, _ *api.Op) bool { return k != i }); err != nil {
				t.Fatalf("%v: %v", l, err)
			}
			last := g.q.Journal[len(g.q.Journal)-1]
			if last.Kind != "fail" || !strings.Contains(last.Text, op.Kind+" was not ok") || len(g.q.Journal) != i+2 {
				t.Errorf("%v: after op %d, %s, it did\n%s", l, i, builtins.OpText(op), g.text())
			}
		}
	}
}

func TestLibraryScripts(t *testing.T) {
	for n, want := range map[int]string{
		0: `replace(["web.1"], order = "start-first")
wait_healthy(["web.1"], min_healthy = "10s")
replace(["web.2"], order = "start-first")
wait_healthy(["web.2"], min_healthy = "10s")
replace(["web.3"], order = "start-first")
wait_healthy(["web.3"], min_healthy = "10s")
succeed()`,
		1: `replace(["web.1", "web.2"], order = "start-first")
wait_healthy(["web.1", "web.2"], min_healthy = "10s", max_failed = 1)
pause("5s")
replace(["web.3"], order = "start-first")
wait_healthy(["web.3"], min_healthy = "10s", max_failed = 1)
succeed()`,
		4: `surge("canary", 1)
wait_healthy("canary", min_healthy = "1m")
wait_signal("promote")
adopt("canary")
replace(["web.2", "web.3"], order = "start-first")
wait_healthy(["web.2", "web.3"], min_healthy = "10s")
succeed()`,
		7: `surge("green", 3)
wait_healthy("green", min_healthy = "1m")
wait_signal("promote")
adopt("green")
succeed()`,
		9: `surge("canary", 1)
wait_healthy("canary", min_healthy = "10s")
pause("10m")
surge("canary", 2)
wait_healthy("canary", min_healthy = "10s")
pause("10m")
adopt("canary")
replace(["web.3"], order = "start-first")
wait_healthy(["web.3"], min_healthy = "10s")
succeed()`,
		11: `replace(["web.2"], order = "start-first")
wait_healthy(["web.2"], min_healthy = "30s")
replace(["web.1"], order = "start-first")
wait_healthy(["web.1"], min_healthy = "30s")
replace(["web.3"], order = "start-first")
wait_healthy(["web.3"], min_healthy = "30s")
succeed()`,
		13: `replace(["web.1", "web.2", "web.3"], order = "start-first")
wait_healthy(["web.1", "web.2", "web.3"], min_healthy = "10s")
succeed()`,
	} {
		f := fakeOfLibrary(n, 3)
		if err := f.play(&Strategies{}, always); err != nil || f.text() != want {
			t.Errorf("%v: %v\n%s\nwant\n%s", libraryCases[n], err, f.text(), want)
		}
	}
}

// BenchmarkReplay100 replays 100 ops; the goal is well under 1 ms.
func BenchmarkReplay100(b *testing.B) {
	f := newFake(50, &api.RolloutPolicy{Strategy: rollout.Library, Parallelism: "1", Order: "start-first", OnFailure: "rollback"})
	s := &Strategies{}
	if err := f.play(s, always); err != nil || len(f.q.Journal) != 102 {
		b.Fatal(err, len(f.q.Journal))
	}
	f.q.Journal = f.q.Journal[:101]
	b.ReportAllocs()
	for b.Loop() {
		if op, err := s.Next(f.q); err != nil || op.Kind != "succeed" {
			b.Fatal(op, err)
		}
	}
}

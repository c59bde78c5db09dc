package playbooks

import (
	"testing"

	"orch/builtins"
	"orch/engine/api"
)

// TestCoverageChangesNothing: statements that are counted ask for the same ops
// from the same places, and fail at the same ones.
func TestCoverageChangesNothing(t *testing.T) {
	cover := &Coverage{}
	counted, plain := &Strategies{Cover: cover}, &Strategies{}
	for n, l := range libraryCases {
		a, b := fakeOfLibrary(n, 6), fakeOfLibrary(n, 6)
		if err := a.play(counted, always); err != nil {
			t.Fatalf("%v: %v", l, err)
		}
		if err := b.play(plain, always); err != nil {
			t.Fatalf("%v: %v", l, err)
		}
		for i, op := range a.q.Journal {
			if was := b.q.Journal[i]; builtins.OpText(op) != builtins.OpText(was) || op.Origin != was.Origin {
				t.Fatalf("%v: op %d is %v, not %v", l, i, op, was)
			}
		}
	}
	if files := cover.Files(); len(files) != 2 || Percent(files) < 50 {
		t.Errorf("got %+v", files)
	}
	text := "def g(n):\n    'a manual'\n    x = [i for i in range(n)]\n    for i in x:\n        if i == 1: return [][\n            i]\n        elif i: pass\ndef f(r):\n    g(2)\n"
	want := strategyOfText(3, text).play(plain, always).Error()
	if got := strategyOfText(3, text).play(counted, always).Error(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestCoverageCountsLines(t *testing.T) {
	text := `def helper(r, x):
    "not a line of its own"
    return [
        x,
        x,
    ]

def f(r):
    made = helper(r, 1)
    if r.replicas > 2:
        for x in made:
            r.pause("1s")
    elif made:
        # nobody comes here
        r.pause("2s")

        r.pause("3s")
    while_ = [r.pause("4s") for _ in []]
    if not made: return r.fail()
    def inner():
        return 1
    return r.succeed()

def not_asked(r):
    return r.succeed()

at_the_top = helper(None, 1)
`
	cover := &Coverage{}
	s := &Strategies{Cover: cover}
	f := strategyOfText(3, text)
	if err := f.play(s, always); err != nil {
		t.Fatal(err)
	}
	cover.Found("shop/", &api.Bundle{Files: []*api.BundleFile{{Path: "x.star", Content: []byte(text)}}})
	got := cover.Files()
	if len(got) != 1 || got[0].File != "shop/x.star" || got[0].Lines != 16 || got[0].Reached != 11 {
		t.Fatalf("got %+v", got)
	}
	var missed [][2]int
	for _, m := range got[0].Missed {
		missed = append(missed, [2]int{m.From, m.To})
	}
	if len(missed) != 3 || missed[0] != [2]int{13, 17} || missed[1] != [2]int{19, 19} || missed[2] != [2]int{21, 21} {
		t.Errorf("missed %v", missed)
	}
	if len(got[0].Missed[0].Text) != 5 || got[0].Missed[1].Text[0] != "    if not made: return r.fail()" {
		t.Errorf("missed %+v", got[0].Missed)
	}
}

// What isn't a strategy doesn't count, whatever runs of it.
func TestCoverageOfNothing(t *testing.T) {
	cover := &Coverage{}
	f := strategyOfText(1, "def g():\n    return 1\ng()\ndef f(r):\n    return r.succeed()\n")
	if err := f.play(&Strategies{Cover: cover}, always); err != nil {
		t.Fatal(err)
	}
	if got := cover.Files(); len(got) != 1 || got[0].Lines != 1 {
		t.Errorf("got %+v", got)
	}
	if got := (&Coverage{}).Files(); len(got) != 0 || Percent(got) != 0 {
		t.Errorf("got %+v", got)
	}
}

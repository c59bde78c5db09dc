package playtest

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"orch/engine/rollout"
	"orch/engine/simulate"
)

// killEvery plays the release again with the leader killed after each op that
// it took, and says where that comes to something else.
func killEvery(ctx context.Context, play *simulate.Play, steady *simulate.World, played *simulate.Played) error {
	want := timeless(played)
	for _, service := range slices.Sorted(maps.Keys(played.Services)) {
		for i, op := range played.Services[service].Ops {
			again := *play
			again.Kill = func(s string, n int) bool { return s == service && n == i }
			where := fmt.Sprintf("with the leader killed at op %d of %s (%s)", i, service, rollout.Text(op.Op))
			got, err := again.Run(ctx, steady)
			if err != nil {
				return fmt.Errorf("%s: %w", where, err)
			}
			if have := timeless(got); have != want {
				return fmt.Errorf("%s it came to something else:\n%s", where, difference(have, want))
			}
		}
	}
	return nil
}

var instant = regexp.MustCompile(`\d{4}-\d\d-\d\dT[0-9:]+Z`)

// timeless is an ending without the times in its reasons: they come later
// where nobody led for a while.
func timeless(p *simulate.Played) string { return instant.ReplaceAllString(p.Ending(), "(time)") }

// difference shows the first lines that differ.
func difference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	line := func(all []string, i int) string {
		if i < len(all) && all[i] != "" {
			return strings.TrimSpace(all[i])
		}
		return "nothing more"
	}
	for i := range max(len(g), len(w)) {
		if line(g, i) != line(w, i) {
			return "    then:  " + line(g, i) + "\n    else:  " + line(w, i)
		}
	}
	return ""
}

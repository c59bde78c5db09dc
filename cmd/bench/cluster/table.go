package cluster

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// What is measured, in the words of the table.
const (
	form        = "cluster of three made"
	create      = "create to 12 running"
	update      = "rolling update by 2, monitor 0.1 s"
	takenBack   = "update that fails at once, to taken back"
	crash       = "one container killed to replaced"
	drain       = "drain a host to 12 running elsewhere"
	stopped     = "leader stopped in order to next write"
	hostCut     = "host cut off to 12 running elsewhere"
	leaderWrite = "leader cut off to next write"
	leaderTasks = "leader's host cut off to 12 running elsewhere"
	back        = "healed to whole, nothing twice"
	rss         = "memory of a manager or engine, 12 running"
	rssDocker   = "dockerd's part of it, above idle"
)

var lines = []struct{ what, goal string }{
	{form, ""}, {create, "orch/bare 1.25"}, {update, "orch/swarm 0.7"}, {takenBack, "orch/swarm 1"}, {crash, "1s"}, {drain, ""}, {stopped, "0.5s"},
	{hostCut, "6s"}, {leaderWrite, "2s"}, {leaderTasks, "8s"}, {back, ""}, {rss, "60 MiB"}, {rssDocker, ""},
}

// table holds all rounds of all systems.
type table struct {
	took  map[[2]string][]time.Duration // system and what
	notes map[[2]string]string
}

// column is a system's part of a table.
type column struct {
	*table
	name string
}

func (t *table) of(system string) column { return column{t, system} }

func (c column) add(what string, took time.Duration) { c.table.add(c.name, what, took) }

func (c column) note(what, text string) {
	if c.notes == nil {
		c.table.notes = map[[2]string]string{}
	}
	c.notes[[2]string{c.name, what}] = text
}

func (t *table) add(system, what string, took time.Duration) {
	if t.took == nil {
		t.took = map[[2]string][]time.Duration{}
	}
	key := [2]string{system, what}
	t.took[key] = append(t.took[key], took)
}

func (t *table) median(system, what string) time.Duration {
	all := slices.Sorted(slices.Values(t.took[[2]string{system, what}]))
	if len(all) == 0 {
		return 0
	}
	return all[len(all)/2]
}

func (t *table) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "12 REPLICAS ON 3 HOSTS\tBARE\tOWN NETWORK\tSWARM\tORCH\tORCH/SWARM\tORCH/BARE\tGOAL")
	for _, l := range lines {
		bare, network := t.median("bare", l.what), t.median("bare, own network", l.what)
		theirs, ours := t.median("swarm", l.what), t.median("orch", l.what)
		fmt.Fprintf(w, "%s\t%s\t%s\t%s%s\t%s%s\t%s\t%s\t%s\n", l.what, short(bare), short(network),
			short(theirs), t.notes[[2]string{"swarm", l.what}], short(ours), t.notes[[2]string{"orch", l.what}],
			ratio(ours, theirs), ratio(ours, bare), l.goal)
	}
	return w.Flush()
}

func short(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return fmt.Sprintf("%.2fs", d.Seconds())
}

func ratio(a, b time.Duration) string {
	if a == 0 || b == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", float64(a)/float64(b))
}

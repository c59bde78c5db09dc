package store_test

import (
	"testing"

	"orch/engine/api"
	"orch/engine/state"
	"orch/engine/store"
)

func change(index uint64, deltas int) state.Change {
	return state.Change{Index: index, Deltas: make([]state.Delta, deltas)}
}

func TestWatcher(t *testing.T) {
	ws := &store.Watchers{}
	w, other := ws.Watch(), ws.Watch()
	if c, all := w.Take(); c != nil || all {
		t.Error("it begins with something")
	}
	store.Tell(ws, change(1, 1))
	store.Tell(ws, change(2, 1))
	<-w.Wake()
	select {
	case <-w.Wake():
		t.Error("one wake is enough")
	default:
	}
	if c, all := w.Take(); len(c) != 2 || c[0].Index != 1 || c[1].Index != 2 || all {
		t.Errorf("got %v, %v", c, all)
	}
	store.Tell(ws, change(3, store.MaxPending))
	if c, all := w.Take(); len(c) != 1 || all {
		t.Errorf("as many as are kept: %d, %v", len(c), all)
	}
	// The other didn't ask: more than is kept becomes "look at everything",
	// and what comes after isn't kept either.
	store.Tell(ws, change(4, 1))
	if c, all := other.Take(); c != nil || !all {
		t.Errorf("too many: %d, %v", len(c), all)
	}
	store.Tell(ws, change(5, 1))
	if c, all := other.Take(); len(c) != 1 || all {
		t.Errorf("after all was taken: %d, %v", len(c), all)
	}
	store.TellAll(ws)
	if c, all := w.Take(); c != nil || !all {
		t.Errorf("restored: %v, %v", c, all)
	}
	w.Stop()
	store.Tell(ws, change(6, 1))
	if c, _ := w.Take(); c != nil {
		t.Error("a stopped watcher collects")
	}
}

// Each change comes once, in order, with rows before and after.
func TestWatchFollowsTheLog(t *testing.T) {
	s := lead(t, config(""))
	defer shut(t, s)
	w := s.Watch()
	defer w.Stop()
	all := names("n", 10)
	propose(t, s, all...)
	propose(t, s, all[0])
	var seen []state.Change
	for len(seen) < 11 {
		<-w.Wake()
		c, _ := w.Take()
		seen = append(seen, c...)
	}
	for i, c := range seen[:10] {
		after, _ := c.Deltas[0].After.(*api.Node)
		if c.Deltas[0].Before != nil || after.GetId() != all[i] || !c.Time.Equal(epoch) {
			t.Errorf("change %d: %v", i, c)
		}
	}
	if b, _ := seen[10].Deltas[0].Before.(*api.Node); b.GetId() != all[0] || seen[10].Index <= seen[9].Index {
		t.Errorf("got %v", seen[10])
	}
}

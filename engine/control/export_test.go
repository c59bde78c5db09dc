package control

import (
	"time"

	"orch/engine/state"
)

// Dirty is the loop's memory of what to look at, for tests.
type Dirty struct{ d dirty }

func NewDirty(v state.View) *Dirty {
	d := &Dirty{dirty{services: map[string]bool{}, wake: map[string]time.Time{}}}
	d.d.everything(v)
	return d
}

func (d *Dirty) Take(now time.Time) []string                  { return d.d.take(now) }
func (d *Dirty) Note(p Pass)                                  { d.d.note(p) }
func (d *Dirty) Changed(v state.View, changes []state.Change) { d.d.changed(v, changes) }
func (d *Dirty) Next() (at time.Time) {
	for _, t := range d.d.wake {
		if at.IsZero() || t.Before(at) {
			at = t
		}
	}
	return at
}

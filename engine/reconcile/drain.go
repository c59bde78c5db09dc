package reconcile

import (
	"time"

	"orch/engine/api"
	"orch/engine/state"
)

// followWithin a node has put an epoch into effect, or it isn't waited for.
// One that is cut off is down far sooner.
const followWithin = 15 * time.Second

// drain lets tasks stop that were told to, once no node sends them anything
// new and nothing is in flight to them, or their time is up.
func (s *service) drain() {
	for _, id := range s.slotIDs {
		for _, t := range s.tasks[id] {
			if t.Desired != api.TaskDesired_TASK_DESIRED_STOP || t.Drained || !live(t) {
				continue
			}
			end := state.DrainEnd(s.view, t)
			latest := t.StopSince.AsTime().Add(followWithin)
			if end.After(latest) {
				latest = end
			}
			switch over := !s.now.Before(end); {
			case s.applied(t) && (over || s.followed.InFlight[t.Id] == 0), !s.now.Before(latest), s.nodes[t.NodeId] == nil:
				s.change(&api.TaskChange{Id: t.Id, Drained: true})
			case over:
				s.Follows = true
				s.wakeAt(latest)
			default:
				s.Follows = true
				s.wakeAt(end)
			}
		}
	}
}

// applied says that every node knows of a task's part in the endpoint table.
func (s *service) applied(t *api.Task) bool {
	if t.Epoch <= s.followed.Applied {
		return true
	}
	s.Follows = true
	return false
}

// inRotation says that a task has taken over: it serves, and every node sends
// it what is new.
func (s *service) inRotation(t *api.Task) bool { return s.serving(t) && s.applied(t) }

package rollout

import (
	"slices"

	"google.golang.org/protobuf/types/known/durationpb"

	"orch/engine/api"
)

// What the engine does around any strategy, in ops of its own that the
// strategy doesn't see: jobs before and after, and what is left to do when it
// says that all is well.

// jobs runs those of a list that haven't run in this execution, one after
// the other; nil: all have.
func (s *step) jobs(journal []*api.Op, names []string) *api.Op {
	for _, name := range names {
		i := slices.IndexFunc(journal, func(op *api.Op) bool { return op.Engine && op.Kind == "run" && op.Text == name })
		switch {
		case i < 0:
			return &api.Op{Kind: "run", Text: name, Engine: true}
		case !journal[i].Ok:
			return &api.Op{Kind: "fail", Policy: s.onFailure(), Reason: journal[i].Reason, Engine: true}
		}
	}
	return nil
}

// first starts a service of which nothing runs yet.
func (s *step) first(journal []*api.Op) *api.Op {
	last := journal[len(journal)-1]
	switch {
	case last.Kind == "wait_healthy" && !last.Ok:
		return &api.Op{Kind: "fail", Policy: s.onFailure(), Reason: last.Reason, Engine: true}
	case len(s.remaining()) > 0:
		return &api.Op{Kind: "replace", Slots: ids(s.remaining()), Order: "start-first", Engine: true}
	}
	return &api.Op{Kind: "succeed", Engine: true}
}

// finish does what is left before succeed: slots that came meanwhile get the
// new version, surges that weren't adopted go, and nothing counts as done
// that wasn't seen healthy.
func (s *step) finish(journal []*api.Op, succeed *api.Op) *api.Op {
	last := journal[len(journal)-1]
	if last.Engine && last.Kind == "wait_healthy" && !last.Ok {
		return &api.Op{Kind: "fail", Policy: s.onFailure(), Reason: last.Reason, Engine: true}
	}
	if rest := s.remaining(); len(rest) > 0 {
		order := s.r.Policy.GetOrder()
		if order == "" {
			order = "start-first"
		}
		return &api.Op{Kind: "replace", Slots: ids(rest), Order: order, Engine: true}
	}
	if len(s.surge) > 0 {
		return &api.Op{Kind: "drop", Group: s.surge[0].Group, Engine: true}
	}
	if unseen := unwaited(ids(s.slots), journal); len(unseen) > 0 {
		op := &api.Op{Kind: "wait_healthy", Slots: unseen, Duration: s.r.Policy.GetMonitor(), Engine: true}
		if op.Duration == nil {
			op.Duration = durationpb.New(0)
		}
		return op
	}
	if op := s.jobs(journal, s.r.Policy.GetAfter()); op != nil {
		return op
	}
	return succeed
}

// unwaited are the slots that no wait of the journal was for, or that were
// replaced since.
func unwaited(slots []string, journal []*api.Op) []string {
	waited := map[string]bool{}
	for _, op := range journal {
		for _, s := range op.Slots {
			switch op.Kind {
			case "wait_healthy":
				waited[s] = true
			case "replace":
				delete(waited, s)
			}
		}
	}
	return slices.DeleteFunc(slices.Clone(slots), func(s string) bool { return waited[s] })
}

func ids(slots []*api.Slot) []string {
	all := make([]string, len(slots))
	for i, s := range slots {
		all[i] = s.Id
	}
	return all
}

package control

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"google.golang.org/protobuf/types/known/timestamppb"

	"orch/engine/api"
	"orch/engine/rollout"
)

// flaky can't be asked so many times.
type flaky struct{ fails, asked int }

func (f *flaky) Next(rollout.Question) (*api.Op, error) {
	if f.asked++; f.asked <= f.fails {
		return nil, fmt.Errorf("%w: it was killed", rollout.ErrUnavailable)
	}
	return &api.Op{Kind: "succeed"}, nil
}

func TestAStrategyThatCannotBeAskedIsAskedAgain(t *testing.T) {
	for fails, want := range map[int]bool{0: true, 1: true, mostTries - 1: true, mostTries: false} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			f := &flaky{fails: fails}
			a := newAsked(ctx, f, nil)
			q := rollout.Question{Rollout: &api.Rollout{Id: "s/web~1", ServiceId: "s/web"}, Journal: []*api.Op{{Kind: "begin"}}}
			if _, err := a.Next(q); !errors.Is(err, rollout.ErrPending) {
				t.Fatal(err)
			}
			<-a.told
			op, err := a.Next(q)
			if (err == nil) != want || want && op.Kind != "succeed" || !want && !errors.Is(err, rollout.ErrUnavailable) {
				t.Errorf("failing %d times: %v, %v", fails, op, err)
			}
			cancel()
			a.under.Wait()
		})
	}
}

// The same question, asked a moment later, has the answer; another rollout of
// the same id has none yet.
func TestAnswersGoByTheQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		f := &flaky{}
		a := newAsked(ctx, f, nil)
		question := func(created, ended int64) rollout.Question {
			return rollout.Question{Rollout: &api.Rollout{Id: "s/web~1", ServiceId: "s/web", CreatedAt: &timestamppb.Timestamp{Seconds: created}},
				Journal: []*api.Op{{Kind: "begin", Slots: []string{"s/web.1"}, EndedAt: &timestamppb.Timestamp{Seconds: ended}}}}
		}
		_, _ = a.Next(question(1, 10))
		<-a.told
		if op, err := a.Next(question(1, 11)); err != nil || op.Kind != "succeed" || f.asked != 1 {
			t.Errorf("later: %v, %v, asked %d times", op, err, f.asked)
		}
		if _, err := a.Next(question(2, 11)); !errors.Is(err, rollout.ErrPending) {
			t.Errorf("of another rollout: %v", err)
		}
		<-a.told
		cancel()
		a.under.Wait()
	})
}

// One that nobody waits for any more is not asked for ever.
func TestAskingAgainEndsWithTheLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		a := newAsked(ctx, &flaky{fails: 1000}, nil)
		q := rollout.Question{Rollout: &api.Rollout{Id: "s/web~1"}, Journal: []*api.Op{{Kind: "begin"}}}
		_, _ = a.Next(q)
		synctest.Wait()
		cancel()
		a.under.Wait()
	})
}

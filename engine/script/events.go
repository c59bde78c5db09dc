package script

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	"orch/engine/api"
	"orch/engine/simulate"
)

// Seconds draws a duration of 0 to 5 seconds, or none.
var Seconds = rapid.Custom(func(t *rapid.T) *durationpb.Duration {
	if rapid.Bool().Draw(t, "unset") {
		return nil
	}
	return durationpb.New(time.Duration(rapid.IntRange(0, 5).Draw(t, "seconds")) * time.Second)
})

func drawPolicy(t *rapid.T) *api.RolloutPolicy {
	return &api.RolloutPolicy{
		Parallelism: rapid.SampledFrom([]string{"", "1", "2", "50%", "0"}).Draw(t, "parallelism"), Delay: Seconds.Draw(t, "delay"),
		Monitor: Seconds.Draw(t, "monitor"), Order: rapid.SampledFrom([]string{"", "stop-first", "start-first"}).Draw(t, "order"),
		MaxFailureRatio: rapid.SampledFrom([]float64{0, 0.5}).Draw(t, "ratio"),
		OnFailure:       rapid.SampledFrom([]string{"rollback", "pause", "continue"}).Draw(t, "on_failure"),
	}
}

func drawService(t *rapid.T, name string, earlier []string) *api.ServiceSpec {
	s := &api.ServiceSpec{Name: name, Mode: rapid.SampledFrom([]string{"replicated", "replicated", "global", "job"}).Draw(t, "mode"),
		Task:    &api.TaskSpec{Runtime: "docker", Image: rapid.SampledFrom([]string{"v1", "v2", "bad"}).Draw(t, "image")},
		Restart: &api.RestartPolicy{Condition: rapid.SampledFrom([]string{"any", "on-failure", "none"}).Draw(t, "restart"), MaxAttempts: rapid.Int32Range(0, 3).Draw(t, "attempts"), Window: Seconds.Draw(t, "window")},
		Update:  drawPolicy(t), Placement: &api.Placement{MaxPerNode: rapid.Int32Range(0, 2).Draw(t, "most")}}
	switch s.Mode {
	case "replicated":
		s.Replicas = rapid.Int32Range(0, 4).Draw(t, "replicas")
	case "job":
		s.Job = &api.JobPolicy{Completions: rapid.Int32Range(1, 3).Draw(t, "completions"), Parallelism: rapid.Int32Range(1, 2).Draw(t, "at once"), Retries: rapid.Int32Range(0, 6).Draw(t, "retries")}
	}
	if rapid.Bool().Draw(t, "own rollback") {
		s.Rollback = drawPolicy(t)
	}
	if rapid.IntRange(0, 3).Draw(t, "constrained") == 0 {
		s.Placement.Constraints = []string{rapid.SampledFrom([]string{"node.hostname == a", "node.labels.disk == ssd"}).Draw(t, "constraint")}
	}
	if rapid.IntRange(0, 3).Draw(t, "volume") == 0 {
		s.Task.Mounts = []*api.Mount{{Type: "volume", Source: "data", Target: "/data"}}
	}
	if rapid.IntRange(0, 3).Draw(t, "spread") == 0 {
		s.Placement.Spread = []string{"node.labels.disk"}
	}
	s.RescheduleAfter = Seconds.Draw(t, "reschedule after")
	for _, e := range earlier {
		if rapid.IntRange(0, 2).Draw(t, "depends") == 0 {
			s.DependsOn = append(s.DependsOn, &api.Dependency{Service: e, Condition: rapid.SampledFrom([]string{"started", "ready"}).Draw(t, "condition"), Timeout: Seconds.Draw(t, "timeout")})
		}
	}
	return s
}

func drawStack(t *rapid.T) *api.StackSpec {
	s := &api.StackSpec{Name: "app", Volumes: []*api.VolumeSpec{{Name: "data"}}}
	var names []string
	for i := range rapid.IntRange(0, 3).Draw(t, "services") {
		name := fmt.Sprintf("s%d", i)
		s.Services = append(s.Services, drawService(t, name, names))
		names = append(names, name)
	}
	return s
}

// RandomEvent lets one thing happen: a release, news of a node, a task's end,
// an operator's signal, another leader.
func RandomEvent(t *rapid.T, w *simulate.World) error {
	id := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "node")
	v := w.State.View()
	if w.Nodes() == 0 && rapid.IntRange(0, 4).Draw(t, "no nodes") > 0 {
		if err := w.NodeUp(&api.Node{Id: id}); err != nil {
			return err
		}
	}
	switch rapid.IntRange(0, 16).Draw(t, "event") {
	case 0, 1:
		_, err := w.Apply(drawStack(t), "run")
		return err
	case 11, 12, 13: // the newest release, with another image or count
		r := v.Release("app", v.Stack("app").GetRelease())
		if r == nil || len(r.Spec.Services) == 0 {
			_, err := w.Apply(drawStack(t), "run")
			return err
		}
		next := proto.CloneOf(r.Spec)
		svc := rapid.SampledFrom(next.Services).Draw(t, "service")
		if rapid.IntRange(0, 2).Draw(t, "scale") == 0 && svc.Mode == "replicated" {
			svc.Replicas = rapid.Int32Range(0, 4).Draw(t, "replicas")
		} else {
			svc.Task.Image = rapid.SampledFrom([]string{"v1", "v2", "v3", "bad"}).Draw(t, "image")
		}
		_, err := w.Apply(next, "run")
		return err
	case 2:
		if known, down := w.Has(id); !known || down {
			return w.NodeUp(&api.Node{Id: id})
		}
		return w.NodeDown(id)
	case 3, 14:
		if known, _ := w.Has(id); known {
			return w.NodeSet(id, &api.SetNode{
				Availability: rapid.SampledFrom([]string{"", "active", "drain", "pause"}).Draw(t, "availability"),
				Labels:       map[string]string{"disk": rapid.SampledFrom([]string{"", "ssd"}).Draw(t, "disk")},
			})
		}
	case 15:
		if known, _ := w.Has(id); known && rapid.IntRange(0, 2).Draw(t, "remove") == 0 {
			return w.NodeRemove(id)
		}
	case 16:
		_, err := w.Rebalance()
		return err
	case 4:
		if v.Stack("app") != nil {
			return w.SetStack("app", rapid.SampledFrom([]string{"stop", "start", "start", "remove"}).Draw(t, "action"))
		}
	case 5, 6, 7:
		if tasks := v.Tasks(); len(tasks) > 0 {
			w.End(rapid.SampledFrom(tasks).Draw(t, "task").Id, rapid.SampledFrom([]string{"", "broke"}).Draw(t, "end"))
		}
	case 8:
		if all := v.Services(); len(all) > 0 {
			signal := rapid.SampledFrom([]string{"pause", "resume", "abort"}).Draw(t, "signal")
			_ = w.Signal(rapid.SampledFrom(all).Draw(t, "service").Id, signal) // refused where it makes no sense
		}
	case 9:
		return w.KillLeader()
	}
	return nil
}

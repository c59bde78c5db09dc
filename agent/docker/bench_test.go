package docker_test

import (
	"fmt"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"orch/agent/task"
	"orch/engine/api"
)

// BenchmarkTwelve starts 12 containers at once through the Runtime and by
// `docker run -d`, and reports how the times compare. It needs Docker.
func BenchmarkTwelve(b *testing.B) {
	_, cluster, ref, secrets := daemon(b)
	rt := open(b, cluster, secrets)
	describe := func(i int) *task.Task {
		return &task.Task{ID: fmt.Sprintf("bench/web.%d#1", i), Cluster: cluster, Stack: "bench", Service: "web",
			Networks: []*api.TaskNetwork{{Spec: &api.NetworkSpec{Name: "default"}}},
			Spec:     &api.TaskSpec{Image: ref, Entrypoint: []string{"/prog"}, Command: []string{"wait"}}}
	}
	each := func(fn func(i int) error) time.Duration {
		begun := time.Now()
		var g errgroup.Group
		for i := range 12 {
			g.Go(func() error { return fn(i) })
		}
		if err := g.Wait(); err != nil {
			b.Fatal(err)
		}
		return time.Since(begun)
	}
	var ours, bare time.Duration
	for b.Loop() {
		bare += each(func(i int) error {
			return exec.Command("docker", "run", "-d", "--name", fmt.Sprintf("%s-%d", cluster, i), ref, "/prog", "wait").Run()
		})
		each(func(i int) error {
			return exec.Command("docker", "rm", "-f", fmt.Sprintf("%s-%d", cluster, i)).Run()
		})
		ours += each(func(i int) error {
			if err := rt.Prepare(b.Context(), describe(i), nil); err != nil {
				return err
			}
			_, err := rt.Start(b.Context(), describe(i))
			return err
		})
		each(func(i int) error { return rt.Remove(b.Context(), describe(i).ID) })
		if err := rt.Prune(b.Context(), nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(ours)/float64(bare), "ratio")
	b.ReportMetric(float64(ours.Milliseconds())/float64(b.N), "ms/ours")
	b.ReportMetric(float64(bare.Milliseconds())/float64(b.N), "ms/bare")
}

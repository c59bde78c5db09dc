package store_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"orch/engine/store"
)

func modes(b *testing.B, do func(*testing.B, func(dir string) store.Config)) {
	b.Run("plain", func(b *testing.B) { do(b, config) })
	b.Run("sealed", func(b *testing.B) { do(b, sealed) })
}

// How long a lone engine takes until it leads, with a new folder and again.
func BenchmarkLead(b *testing.B) {
	modes(b, func(b *testing.B, config func(string) store.Config) {
		b.Run("new", func(b *testing.B) {
			for b.Loop() {
				s := lead(b, config(b.TempDir()))
				b.StopTimer()
				shut(b, s)
				b.StartTimer()
			}
		})
		for _, entries := range []int{10, 10_000} {
			b.Run(fmt.Sprint("again-", entries), func(b *testing.B) {
				dir := b.TempDir()
				s := lead(b, config(dir))
				fillLog(b, s, entries)
				shut(b, s)
				for b.Loop() {
					s := lead(b, config(dir))
					b.StopTimer()
					shut(b, s)
					b.StartTimer()
				}
			})
		}
	})
}

// fillLog writes many entries, many at a time.
func fillLog(tb testing.TB, s *store.Store, n int) {
	tb.Helper()
	errs := make(chan error, 64)
	for w := range cap(errs) {
		go func() {
			var err error
			for i := w; i < n && err == nil; i += cap(errs) {
				_, err = s.Propose(context.Background(), putNode(fmt.Sprint("n", i%100)))
			}
			errs <- err
		}()
	}
	for range cap(errs) {
		if err := <-errs; err != nil {
			tb.Fatal(err)
		}
	}
}

// One proposal after the other, and 64 at a time, of 200 bytes and 100 KiB.
func BenchmarkPropose(b *testing.B) {
	modes(b, func(b *testing.B, config func(string) store.Config) {
		for _, size := range []int{200, 100 << 10} {
			for _, writers := range []int{1, 64} {
				b.Run(fmt.Sprintf("%d-bytes/%d-writers", size, writers), func(b *testing.B) {
					s := lead(b, config(b.TempDir()))
					defer shut(b, s)
					c := putNode("n")
					c.GetPutNode().StatusReason = string(bytes.Repeat([]byte("x"), size))
					b.SetBytes(int64(size))
					b.SetParallelism(writers)
					if writers == 1 {
						for b.Loop() {
							if _, err := s.Propose(b.Context(), c); err != nil {
								b.Fatal(err)
							}
						}
						return
					}
					b.RunParallel(func(p *testing.PB) {
						for p.Next() {
							if _, err := s.Propose(context.Background(), c); err != nil {
								b.Error(err)
								return
							}
						}
					})
				})
			}
		}
	})
}

// How long writes stay away, with the timing of real clusters, when the
// leader of three is killed, is cut off, or ends as asked to.
func BenchmarkFailover(b *testing.B) {
	for name, away := range map[string]func(*group, *member){
		"killed":  func(_ *group, m *member) { m.kill(b) },
		"cut-off": func(g *group, m *member) { g.set(silent, g.links(m)...) },
		"stopped": func(_ *group, m *member) { m.stop(b) },
	} {
		b.Run(name, func(b *testing.B) {
			g := newGroup(b, store.Timing{}, "a", "b", "c")
			g.form(b)
			var took []float64
			for i := range b.N {
				g.put(b, "before")
				agree(b, g.all, min(i+1, 2))
				old := g.leader(b)
				began := time.Now()
				away(g, old)
				rest := &group{network: g.network, all: g.others(old)}
				rest.put(b, "after")
				took = append(took, float64(time.Since(began).Microseconds())/1000)
				g.heal()
				if old.store() == nil {
					old.start(b)
				}
				agree(b, g.all, 2)
			}
			slices.Sort(took)
			b.ReportMetric(took[0], "min-ms")
			b.ReportMetric(took[len(took)/2], "median-ms")
			b.ReportMetric(took[len(took)-1], "max-ms")
			b.Logf("ms: %.0f", took)
		})
	}
}

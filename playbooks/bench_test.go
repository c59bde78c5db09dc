package playbooks

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

const loopPlaybook = `
net = network("backend")
probe = health.http("/", port = 80)
def make(i):
    return service(
        "web-%d" % i,
        image = "nginx:1.29",
        replicas = 2 + i % 3,
        env = {"INDEX": i, "LEVEL": "info"},
        networks = [net],
        ports = [80],
        health = probe,
    )
stack("many", services = [make(i) for i in range(10000)])
`

// BenchmarkLoop10000 evaluates 10,000 services made by a loop; the goal is
// 100 ms.
func BenchmarkLoop10000(b *testing.B) {
	bundle := bundleOf("many.star", map[string]string{"many.star": loopPlaybook})
	b.ReportAllocs()
	for b.Loop() {
		r, err := Eval(b.Context(), Options{Bundle: bundle})
		if err != nil || len(r.Spec.Services) != 10000 {
			b.Fatal(err)
		}
	}
}

// flatPlaybook is 2.9 MB of services written out one by one.
func flatPlaybook() string {
	var b strings.Builder
	b.WriteString("net = network(\"backend\")\n")
	var names []string
	for i := 0; b.Len() < 2_900_000; i++ {
		fmt.Fprintf(&b, "web_%d = service(\n    \"web-%d\",\n    image = \"registry.example.com/team/web:1.%d\",\n    replicas = %d,\n"+
			"    env = {\"INDEX\": \"%d\", \"LEVEL\": \"info\", \"UPSTREAM\": \"backend-%d\"},\n    networks = [net],\n    ports = [port(80)],\n"+
			"    labels = {\"team\": \"web\", \"tier\": \"front\"},\n)\n", i, i, i, 1+i%3, i, i)
		names = append(names, fmt.Sprintf("web_%d", i))
	}
	fmt.Fprintf(&b, "stack(\"flat\", services = [%s])\n", strings.Join(names, ", "))
	return b.String()
}

// BenchmarkFlatCached evaluates a large flat playbook whose program is in
// the cache; the goal is 200 ms.
func BenchmarkFlatCached(b *testing.B) { benchmarkFlat(b, b.TempDir()) }

// BenchmarkFlatUncached is the same with parsing and compiling.
func BenchmarkFlatUncached(b *testing.B) { benchmarkFlat(b, "") }

func benchmarkFlat(b *testing.B, cache string) {
	dir := b.TempDir()
	path := filepath.Join(dir, "flat.star")
	write(b, dir, map[string]string{"flat.star": flatPlaybook()})
	o := Options{Path: path, CacheDir: cache}
	if _, err := Eval(b.Context(), o); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Eval(b.Context(), o); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSandbox is what a child costs.
func BenchmarkSandbox(b *testing.B) {
	r, err := Eval(b.Context(), Options{Path: "tick.star"})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, _, err := (Sandbox{}).Evaluate(b.Context(), r.Bundle, ""); err != nil {
			b.Fatal(err)
		}
	}
}

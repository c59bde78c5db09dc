package engine_test

import (
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// may lists what each package may import from orch, its tests aside: the
// arrows of DESIGN.md. A package that isn't listed is new: say here where it
// stands. "x/*" is everything directly below x.
var may = map[string][]string{
	"engine/api":            {},
	"engine/api/apiconnect": {"engine/api"},
	"engine/spec":           {"engine/api"},
	"engine/state":          {"engine/api", "engine/spec"},
	"engine/reconcile":      {"engine/api", "engine/spec", "engine/state"},
	"engine/rollout":        {"engine/api", "engine/spec", "engine/state"},
	"engine/release":        {"engine/api", "engine/spec", "engine/state", "engine/status"},
	"engine/schedule":       {"engine/api", "engine/spec", "engine/state"},
	"engine/status":         {"engine/api", "engine/spec", "engine/state", "engine/reconcile", "engine/rollout"},
	"engine/store":          {"engine/api", "engine/state"},
	"engine/control":        {"engine/api", "engine/spec", "engine/state", "engine/reconcile", "engine/rollout", "engine/release", "engine/schedule"},
	"engine/access":         {"engine/api", "engine/api/apiconnect", "engine/state", "engine/ca"},
	"engine/backup":         {"engine/state", "engine/seal"},
	"engine/enroll":         {"engine/api", "engine/state", "engine/ca", "engine/seal"},
	"engine/folder":         {"engine/api", "engine/ca", "engine/durable"},
	"engine/forward":        {"engine/api", "engine/access", "engine/ca", "engine/state"},
	"engine/member":         {"engine/api"},
	"engine/reach":          {"engine/ca"},
	"engine/probe":          {"engine/api", "engine/rollout"},
	"engine/dispatch":       {"engine/api", "engine/api/apiconnect", "engine/state", "engine/ca"},
	"engine/ca":             {},
	"engine/seal":           {},
	"engine/durable":        {},
	"engine/bootstrap":      {"engine/api", "engine/spec", "engine/spelling"},
	"engine/spelling":       {},
	"engine/operator":       {"engine/api", "engine/api/apiconnect", "engine/spec", "engine/state", "engine/status", "engine/ca", "engine/seal", "engine/reconcile", "engine/schedule", "engine/enroll", "engine/backup", "engine/folder", "engine/rollout", "engine/simulate"},
	"engine/simulate":       {"engine/api", "engine/spec", "engine/state", "engine/rollout", "engine/schedule", "engine/control", "engine/status"},
	"engine/script":         {"engine/api", "engine/spec", "engine/state", "engine/rollout", "engine/simulate"},
	"engine":                {"engine/*", "engine/api/apiconnect"},

	"agent/task":        {"engine/api"},
	"agent/health":      {"engine/api"},
	"agent/network":     {"engine/api"},
	"agent/ingress":     {"engine/api", "agent/sockets"},
	"agent/meshrelay":   nil,
	"agent/relay":       nil,
	"agent/detached":    nil,
	"agent/sockets":     nil,
	"agent/taskfiles":   {"engine/api", "agent/task"},
	"agent/docker":      {"engine/api", "agent/task", "agent/taskfiles"},
	"agent/process":     {"engine/api", "agent/task", "agent/taskfiles", "agent/detached"},
	"agent/runtimetest": {"engine/api", "agent/task", "agent/worker"},
	"agent/worker":      {"engine/api", "agent/task", "agent/health"},
	"agent/session":     {"engine/api", "engine/api/apiconnect"},
	"agent/mesh":        {"engine/api", "agent/detached"},
	"agent/overlay":     {"engine/api"},
	"agent/virtual":     {"engine/api"},
	"agent/names":       {"engine/api", "agent/sockets"},
	// The data plane's process is put together of its parts, like the agent.
	"agent/carrier": {"engine/api", "engine/api/apiconnect", "agent/ingress", "agent/relay", "agent/meshrelay", "agent/names", "agent/sockets", "agent/detached"},
	"agent":         {"engine/api", "engine/api/apiconnect", "agent/*"},

	"builtins":           {"engine/api", "engine/spec", "engine/spelling"},
	"playbooks":          {"engine/api", "engine/spec", "engine/rollout", "builtins"},
	"playbooks/playtest": {"engine/api", "engine/spec", "engine/state", "engine/rollout", "engine/simulate", "playbooks", "builtins"},
}

// roots may import anything: nothing is above them.
var roots = []string{"cmd/", "playbooks/demo", "agent/runtimetest/testdata"}

// banned are imports from elsewhere that only some may have.
var banned = []struct {
	what string
	only []string
	why  string
}{
	{"github.com/hashicorp/raft", []string{"engine/store"}, "the log has one door, store.Propose"},
	{"github.com/hashicorp/raft-boltdb", []string{"engine/store"}, "the log has one door, store.Propose"},
	{"github.com/docker/docker", []string{"agent/docker"}, "its client is frozen and will be replaced there"},
	{"golang.org/x/crypto/ssh", []string{"engine/bootstrap"}, "only installing hosts needs ssh"},
	{"github.com/miekg/dns", []string{"agent/names"}, "names have one place"},
	{"golang.zx2c4.com/wireguard", []string{"agent/mesh"}, "the mesh has one place"},
	{"github.com/skeema/knownhosts", []string{"engine/bootstrap"}, "only installing hosts needs ssh"},
	{"github.com/kevinburke/ssh_config", []string{"engine/bootstrap"}, "only installing hosts needs ssh"},
	{"go.starlark.net", []string{"builtins", "playbooks", "playbooks/playtest", "cmd/orch"}, "Starlark never runs where state is changed"},
	{"github.com/hashicorp/go-memdb", []string{"engine/state"}, "rows are reached through state.View"},
	{"pgregory.net/rapid", []string{"engine/script"}, "it is for tests"},
	{"testing", []string{"agent/runtimetest", "playbooks/playtest", "engine/script"}, "it is for tests"},
}

// pure packages (or, with a file, that file) take values and return values.
var pure = map[string][]string{ // package -> imports that are allowed all the same
	"engine/spec":            nil,
	"engine/state":           {"sync"}, // guards the pointer to the rows
	"engine/reconcile":       nil,
	"engine/release":         nil,
	"engine/rollout":         nil,
	"engine/schedule":        nil,
	"engine/status":          nil,
	"engine/control/pass.go": nil,
	"engine/member":          nil,
	"engine/access":          nil,
	"agent/task":             nil,
	"agent/task/exit.go":     {"syscall"},
}

// impure imports and calls, and why a pure package has no need of them.
var impureImports = map[string]string{
	"os": "a decision depends on nothing outside", "net": "a decision depends on nothing outside", "net/http": "a decision depends on nothing outside",
	"math/rand": "two engines must decide alike", "math/rand/v2": "two engines must decide alike", "crypto/rand": "two engines must decide alike",
	"sync": "values need no locks", "log": "callers log", "log/slog": "callers log", "context": "a decision takes no time", "unsafe": "values need no tricks",
}

var clock = []string{"Now", "After", "AfterFunc", "Sleep", "Since", "Until", "Tick", "NewTimer", "NewTicker"}

type file struct {
	pkg, name string
	test      bool
	tree      *ast.File
	imports   []string
}

// files parses the Go files of the module.
func files(t *testing.T) []file {
	t.Helper()
	var all []file
	set := token.NewFileSet()
	for _, top := range []string{"engine", "agent", "builtins", "playbooks", "cmd"} {
		err := filepath.WalkDir(filepath.Join("..", top), func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(p, ".go") || strings.HasSuffix(p, ".pb.go") {
				return err
			}
			tree, err := parser.ParseFile(set, p, nil, parser.ParseComments|parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			rel := filepath.ToSlash(strings.TrimPrefix(p, ".."+string(filepath.Separator)))
			f := file{pkg: path.Dir(rel), name: rel, test: strings.HasSuffix(p, "_test.go"), tree: tree}
			for _, i := range tree.Imports {
				name, _ := strconv.Unquote(i.Path.Value)
				f.imports = append(f.imports, name)
			}
			all = append(all, f)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func TestLayout(t *testing.T) {
	comments := map[string]bool{}
	for _, f := range files(t) {
		if !f.test && !strings.Contains(f.pkg, "testdata") {
			comments[f.pkg] = comments[f.pkg] || f.tree.Doc != nil
		}
		for _, bad := range []string{"util", "utils", "common", "helpers", "types", "misc"} {
			if path.Base(f.pkg) == bad {
				t.Errorf("%s: a package is named for what it holds, not %q", f.name, bad)
			}
		}
		if f.test {
			sleepless(t, f)
		} else {
			arrows(t, f)
		}
		foreign(t, f)
		purity(t, f)
	}
	for pkg, has := range comments {
		if !has {
			t.Errorf("package %s has no package comment: say what it promises and who may call it", pkg)
		}
	}
}

func isRoot(pkg string) bool {
	return slices.ContainsFunc(roots, func(r string) bool { return strings.HasPrefix(pkg+"/", r) || strings.HasPrefix(pkg, r) })
}

func arrows(t *testing.T, f file) {
	allowed, known := may[f.pkg]
	for _, i := range f.imports {
		to, ours := strings.CutPrefix(i, "orch/")
		if !ours {
			continue
		}
		if to == "engine/script" || to == "agent/runtimetest" {
			t.Errorf("%s imports %s, which is for tests", f.name, to)
		}
		if isRoot(f.pkg) || slices.Contains(allowed, to) || slices.Contains(allowed, path.Dir(to)+"/*") {
			continue
		}
		if !known {
			t.Errorf("package %s isn't listed in layout_test.go: say what it may import", f.pkg)
			return
		}
		t.Errorf("%s imports %s: %s", f.name, to, whyNot(f.pkg, to))
	}
}

// whyNot is the reason beside each ban.
func whyNot(from, to string) string {
	floor := func(p string) string { return strings.SplitN(p, "/", 2)[0] }
	switch {
	case floor(from) == "engine" && floor(to) != "engine":
		return "the engine is the ground floor; what it needs from above it declares as an interface"
	case floor(from) == "agent" && floor(to) == "engine":
		return "an agent knows the engine by its messages alone (engine/api)"
	case floor(from) == "agent":
		return "agents' parts know each other only through agent/task and agent/worker's interfaces"
	case floor(from) == "builtins" || floor(from) == "playbooks":
		return "playbooks make specs; clusters are somebody else's matter"
	case to == "engine/store":
		return "only the composition root knows where the log is"
	}
	return "DESIGN.md has no such arrow; packages stay testable by themselves"
}

func foreign(t *testing.T, f file) {
	for _, i := range f.imports {
		for _, b := range banned {
			if i != b.what && !strings.HasPrefix(i, b.what+"/") || slices.Contains(b.only, f.pkg) || f.test && !strings.HasPrefix(b.what, "github.com/hashicorp/raft") {
				continue
			}
			if f.test && f.pkg == "engine" {
				continue
			}
			t.Errorf("%s imports %s, which only %s may: %s", f.name, i, strings.Join(b.only, ", "), b.why)
		}
	}
}

func purity(t *testing.T, f file) {
	allowed, is := pure[f.name]
	if !is {
		allowed, is = pure[f.pkg]
	}
	if !is || f.test {
		return
	}
	for _, i := range f.imports {
		if why := impureImports[i]; why != "" && !slices.Contains(allowed, i) {
			t.Errorf("%s is pure, and imports %s: %s", f.name, i, why)
		}
	}
	ast.Inspect(f.tree, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			t.Errorf("%s is pure, and starts a goroutine", f.name)
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains(clock, n.Sel.Name) {
				t.Errorf("%s is pure, and calls time.%s: the time comes in with the call", f.name, n.Sel.Name)
			}
			if x, ok := n.X.(*ast.Ident); ok && x.Name == "timestamppb" && n.Sel.Name == "Now" {
				t.Errorf("%s is pure, and calls timestamppb.Now: the time comes in with the call", f.name)
			}
		}
		return true
	})
}

func sleepless(t *testing.T, f file) {
	ast.Inspect(f.tree, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := s.X.(*ast.Ident); ok && x.Name == "time" && s.Sel.Name == "Sleep" && !slices.Contains(f.imports, "testing/synctest") {
				t.Errorf("%s sleeps: inject the time, or wait for what you wait for", f.name)
			}
		}
		return true
	})
}

// TestListedPackagesExist keeps the table above honest.
func TestListedPackagesExist(t *testing.T) {
	for pkg := range may {
		if _, err := build.ImportDir(filepath.Join("..", filepath.FromSlash(pkg)), 0); err != nil {
			t.Errorf("%s is listed, and isn't there: %v", pkg, err)
		}
	}
}

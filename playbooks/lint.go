package playbooks

import (
	"fmt"
	"os"
	"strings"

	"go.starlark.net/resolve"
	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"orch/builtins"
)

// Lint reads a playbook or module and says what is suspicious in it, without
// evaluating it. The rules:
//
//	unused-value  a service, job, network, volume, secret or config that nothing uses
//	param-doc     a param without doc
//	load          a loaded name that nothing uses
//	load-on-top   a load after other statements
//	unused-variable  a local variable that nothing reads; _x is exempt
//	no-effect     an expression whose value nobody takes
//	unreachable   a statement after return, break, continue or fail()
//
// A comment `# lint: ignore RULE` at the end of a line silences it there.
func Lint(path string) ([]Diagnostic, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return lint(path, text)
}

func lint(name string, text []byte) ([]Diagnostic, error) {
	f, err := fileOptions.Parse(name, text, 0)
	if err == nil {
		// The resolver notes on the identifiers what they are bound to.
		err = resolve.File(f, builtins.Predeclared().Has, starlark.Universe.Has)
	}
	if err != nil {
		return nil, newError(sources{name: text}, diagnosticsOf(err))
	}
	all := append(unusedValues(f), undocumentedParams(f)...)
	all = append(all, loads(f)...)
	all = append(all, statements(f.Stmts)...)
	syntax.Walk(f, func(n syntax.Node) bool {
		if def, ok := n.(*syntax.DefStmt); ok {
			all = append(all, unusedLocals(def)...)
		}
		return true
	})
	lines := strings.Split(string(text), "\n")
	kept := all[:0]
	for _, d := range all {
		if d.Line == 0 || d.Line > len(lines) || !strings.Contains(lines[d.Line-1], "# lint: ignore "+d.Rule) {
			kept = append(kept, d)
		}
	}
	return finish(sources{name: text}, kept), nil
}

func warning(pos syntax.Position, rule, format string, args ...any) Diagnostic {
	d := at(pos, fmt.Sprintf(format, args...))
	d.Severity, d.Rule = "warning", rule
	return d
}

var makesValue = map[string]bool{"service": true, "job": true, "network": true, "volume": true, "secret": true, "config": true}

// unusedValues finds globals that hold such a value and are never read. A
// module that declares no stack may make them for those who load it.
func unusedValues(f *syntax.File) []Diagnostic {
	type made struct {
		id   *syntax.Ident
		kind string
	}
	var values []made
	stacks := false
	reads := map[string]int{}
	syntax.Walk(f, func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.Ident:
			reads[n.Name]++
			stacks = stacks || n.Name == "stack"
		case *syntax.AssignStmt:
			id, _ := n.LHS.(*syntax.Ident)
			call, _ := n.RHS.(*syntax.CallExpr)
			if id == nil || call == nil {
				break
			}
			if fn, ok := call.Fn.(*syntax.Ident); ok && makesValue[fn.Name] {
				values = append(values, made{id, fn.Name})
			}
		case *syntax.CallExpr: // names of keywords are no reads
			for _, a := range n.Args {
				if b, ok := a.(*syntax.BinaryExpr); ok && b.Op == syntax.EQ {
					if id, ok := b.X.(*syntax.Ident); ok {
						reads[id.Name]--
					}
				}
			}
		}
		return true
	})
	var all []Diagnostic
	for _, v := range values {
		if stacks && reads[v.id.Name] == 1 && !strings.HasPrefix(v.id.Name, "_") {
			all = append(all, warning(v.id.NamePos, "unused-value", "%s %q is never used", v.kind, v.id.Name))
		}
	}
	return all
}

func undocumentedParams(f *syntax.File) []Diagnostic {
	var all []Diagnostic
	eachParam(f, func(call *syntax.CallExpr) {
		if name, ok := literalText(argument(call, "name", 0)); ok && argument(call, "doc", -1) == nil {
			all = append(all, warning(syntax.Start(call), "param-doc", "param %q has no doc; `orch params` shows it", name))
		}
	})
	return all
}

package playbooks

import (
	"strings"

	"go.starlark.net/syntax"
)

// loads checks that what is loaded is used, and loaded first.
func loads(f *syntax.File) []Diagnostic {
	var all []Diagnostic
	reads := map[string]int{}
	syntax.Walk(f, func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.LoadStmt:
			return false
		case *syntax.Ident:
			reads[n.Name]++
		}
		return true
	})
	others := false
	for _, s := range f.Stmts {
		load, ok := s.(*syntax.LoadStmt)
		if !ok {
			others = others || !isDocstring(s)
			continue
		}
		if others {
			all = append(all, warning(load.Load, "load-on-top", "load comes before other statements"))
		}
		for _, to := range load.To {
			if reads[to.Name] == 0 && !strings.HasPrefix(to.Name, "_") {
				all = append(all, warning(to.NamePos, "load", "%q is loaded but never used", to.Name))
			}
		}
	}
	return all
}

func isDocstring(s syntax.Stmt) bool {
	e, ok := s.(*syntax.ExprStmt)
	if !ok {
		return false
	}
	l, ok := e.X.(*syntax.Literal)
	return ok && l.Token == syntax.STRING
}

// statements checks a block and those within it.
func statements(block []syntax.Stmt) []Diagnostic {
	var all []Diagnostic
	ended := false
	for _, s := range block {
		start, _ := s.Span()
		if ended {
			all = append(all, warning(start, "unreachable", "this is never reached"))
			ended = false
		}
		switch s := s.(type) {
		case *syntax.ReturnStmt:
			ended = true
		case *syntax.BranchStmt:
			ended = s.Token != syntax.PASS
		case *syntax.ExprStmt:
			switch x := s.X.(type) {
			case *syntax.CallExpr:
				fn, ok := x.Fn.(*syntax.Ident)
				ended = ok && fn.Name == "fail"
			case *syntax.Comprehension:
			default:
				if !isDocstring(s) {
					all = append(all, warning(start, "no-effect", "nobody takes the value of this expression"))
				}
			}
		case *syntax.IfStmt:
			all = append(append(all, statements(s.True)...), statements(s.False)...)
		case *syntax.ForStmt:
			all = append(all, statements(s.Body)...)
		case *syntax.DefStmt:
			all = append(all, statements(s.Body)...)
		}
	}
	return all
}

// unusedLocals finds simple assignments in a function whose name occurs
// nowhere else in it.
func unusedLocals(def *syntax.DefStmt) []Diagnostic {
	count := map[string]int{}
	var assigned []*syntax.Ident
	for _, s := range def.Body {
		syntax.Walk(s, func(n syntax.Node) bool {
			switch n := n.(type) {
			case *syntax.Ident:
				count[n.Name]++
			case *syntax.AssignStmt:
				if id, ok := n.LHS.(*syntax.Ident); ok && n.Op == syntax.EQ {
					assigned = append(assigned, id)
				}
			}
			return true
		})
	}
	var all []Diagnostic
	for _, id := range assigned {
		if count[id.Name] == 1 && !strings.HasPrefix(id.Name, "_") {
			all = append(all, warning(id.NamePos, "unused-variable", "variable %q is never read", id.Name))
		}
	}
	return all
}

package playbooks

import (
	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"orch/builtins"
)

// locator narrows problems from a call to the argument that is wrong. It
// parses a module again, which only failed runs pay for.
type locator struct {
	text  sources
	calls map[string]map[[2]int32]*syntax.CallExpr
}

func (l *locator) diagnostic(p builtins.Problem, severity string) Diagnostic {
	d := at(l.place(p), p.Message)
	d.Severity = severity
	if p.Hint != "" {
		d.Hint = p.Hint
	}
	stack := p.Stack
	for len(stack) > 0 && stack.At(0).Pos.Line == 0 {
		stack = stack[:len(stack)-1]
	}
	if len(stack) > 1 {
		d.Trace = trace(starlark.CallStack(stack[:len(stack)-1]))
	}
	return d
}

func (l *locator) place(p builtins.Problem) syntax.Position {
	if p.Pos.Line == 0 {
		return p.Pos
	}
	call := l.call(p.Pos)
	if call == nil {
		return p.Pos
	}
	positional := 0
	for _, a := range call.Args {
		if b, ok := a.(*syntax.BinaryExpr); ok && b.Op == syntax.EQ {
			if id, ok := b.X.(*syntax.Ident); ok && p.Arg != "" && id.Name == p.Arg {
				return id.NamePos
			}
			continue
		}
		if u, ok := a.(*syntax.UnaryExpr); ok && (u.Op == syntax.STAR || u.Op == syntax.STARSTAR) {
			if p.Arg != "" && u.Op == syntax.STARSTAR {
				return u.OpPos
			}
			continue
		}
		if positional++; p.Index == positional {
			return syntax.Start(a)
		}
	}
	return syntax.Start(call)
}

// call finds the call whose opening parenthesis is at pos.
func (l *locator) call(pos syntax.Position) *syntax.CallExpr {
	file := pos.Filename()
	if l.calls == nil {
		l.calls = map[string]map[[2]int32]*syntax.CallExpr{}
	}
	calls, ok := l.calls[file]
	if !ok {
		calls = map[[2]int32]*syntax.CallExpr{}
		if f, err := fileOptions.Parse(file, l.text[file], 0); err == nil && l.text[file] != nil {
			syntax.Walk(f, func(n syntax.Node) bool {
				if c, ok := n.(*syntax.CallExpr); ok {
					calls[[2]int32{c.Lparen.Line, c.Lparen.Col}] = c
				}
				return true
			})
		}
		l.calls[file] = calls
	}
	return calls[[2]int32{pos.Line, pos.Col}]
}

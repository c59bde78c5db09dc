package playbooks

import (
	"fmt"
	"strings"

	"go.starlark.net/resolve"
	"go.starlark.net/syntax"

	"orch/builtins"
)

// Param is one param() of a playbook, read from its source alone.
type Param struct {
	Name     string `json:"name"`
	Type     string `json:"type"`
	Default  string `json:"default,omitempty"` // source text; "" where Required
	Required bool   `json:"required,omitempty"`
	Choices  string `json:"choices,omitempty"` // source text
	Doc      string `json:"doc,omitempty"`
	Line     int    `json:"line"`
}

// Params lists the params of the playbook at path, in its order, without
// evaluating it.
func Params(path string) ([]Param, error) {
	src, id, err := openDisk(path)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	text, err := src.read(id)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", path, err)
	}
	f, err := fileOptions.Parse(id, text, 0)
	if err == nil {
		err = checkParams(f, true)
	}
	if err != nil {
		return nil, newError(sources{id: text}, diagnosticsOf(err))
	}
	return paramsOf(f, text), nil
}

func paramsOf(f *syntax.File, text []byte) []Param {
	lines := strings.SplitAfter(string(text), "\n")
	var all []Param
	eachParam(f, func(call *syntax.CallExpr) {
		name, ok := literalText(argument(call, "name", 0))
		if !ok {
			return
		}
		p := Param{Name: name, Required: true, Type: "string", Line: int(call.Lparen.Line)}
		if d := argument(call, "default", -1); d != nil {
			p.Required, p.Default, p.Type = false, excerpt(lines, d), exprType(d)
		}
		if t, ok := literalText(argument(call, "type", -1)); ok {
			p.Type = t
		}
		if c := argument(call, "choices", -1); c != nil {
			p.Choices = excerpt(lines, c)
		}
		p.Doc, _ = literalText(argument(call, "doc", -1))
		all = append(all, p)
	})
	return all
}

// checkParams refuses what would make params impossible to list.
func checkParams(f *syntax.File, root bool) error {
	var errs resolve.ErrorList
	direct := map[*syntax.Ident]bool{}
	eachParam(f, func(call *syntax.CallExpr) {
		direct[call.Fn.(*syntax.Ident)] = true
		if arg := argument(call, "name", 0); root && arg != nil {
			if _, ok := literalText(arg); !ok {
				errs = append(errs, resolve.Error{Pos: syntax.Start(arg), Msg: "param's name must be a literal string, so that params can be listed without running the playbook"})
			}
		}
	})
	syntax.Walk(f, func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.Ident:
			if n.Name == "param" && !direct[n] {
				errs = append(errs, resolve.Error{Pos: n.NamePos, Msg: "param can only be called, by its own name, so that params can be listed without running the playbook"})
			}
		case *syntax.DotExpr:
			syntax.Walk(n.X, func(syntax.Node) bool { return true })
			return n.Name.Name != "param"
		case *syntax.CallExpr: // a keyword of this name is fine
			for _, a := range n.Args {
				if b, ok := a.(*syntax.BinaryExpr); ok && b.Op == syntax.EQ {
					if id, ok := b.X.(*syntax.Ident); ok {
						direct[id] = true
					}
				}
			}
		}
		return true
	})
	if len(errs) > 0 {
		return errs
	}
	return nil
}

func eachParam(f *syntax.File, visit func(*syntax.CallExpr)) {
	syntax.Walk(f, func(n syntax.Node) bool {
		if call, ok := n.(*syntax.CallExpr); ok {
			if id, ok := call.Fn.(*syntax.Ident); ok && id.Name == "param" {
				visit(call)
			}
		}
		return true
	})
}

// argument finds an argument by name, or else at a position; nil if it is
// not there.
func argument(call *syntax.CallExpr, name string, position int) syntax.Expr {
	for i, a := range call.Args {
		if b, ok := a.(*syntax.BinaryExpr); ok && b.Op == syntax.EQ {
			if id, ok := b.X.(*syntax.Ident); ok && id.Name == name {
				return b.Y
			}
		} else if i == position {
			return a
		}
	}
	return nil
}

func literalText(e syntax.Expr) (string, bool) {
	l, ok := e.(*syntax.Literal)
	if !ok {
		return "", false
	}
	s, ok := l.Value.(string)
	return s, ok && l.Token == syntax.STRING
}

func exprType(e syntax.Expr) string {
	switch e := e.(type) {
	case *syntax.Literal:
		switch e.Token {
		case syntax.INT:
			return "int"
		case syntax.FLOAT:
			return "float"
		}
	case *syntax.Ident:
		if e.Name == "True" || e.Name == "False" {
			return "bool"
		}
	case *syntax.UnaryExpr:
		return exprType(e.X)
	case *syntax.ListExpr, *syntax.TupleExpr, *syntax.Comprehension:
		return "list"
	case *syntax.DictExpr:
		return "dict"
	}
	return "string"
}

// excerpt is the source text of an expression, in one line.
func excerpt(lines []string, e syntax.Expr) string {
	start, end := e.Span()
	var b strings.Builder
	for l := start.Line; l <= end.Line && int(l) <= len(lines); l++ {
		runes := []rune(lines[l-1])
		from, to := 0, len(runes)
		if l == start.Line {
			from = min(int(start.Col)-1, len(runes))
		}
		if l == end.Line {
			to = min(int(end.Col)-1, len(runes))
		}
		if from < to {
			b.WriteString(string(runes[from:to]))
		}
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

// unknownParams tells of params that were set but are not there.
func unknownParams(id string, text []byte, given []string, used func(string) bool) []Diagnostic {
	var declared []string
	if f, err := fileOptions.Parse(id, text, 0); err == nil {
		for _, p := range paramsOf(f, text) {
			declared = append(declared, p.Name)
		}
	}
	known := map[string]bool{}
	for _, d := range declared {
		known[d] = true
	}
	var all []Diagnostic
	for _, g := range given {
		if !used(g) && !known[g] {
			d := Diagnostic{Severity: "error", File: id, Message: fmt.Sprintf("the playbook has no param %q", g), Hint: builtins.Suggest(g, declared)}
			if d.Hint == "" && len(declared) > 0 {
				d.Hint = "it has " + strings.Join(declared, ", ")
			}
			all = append(all, d)
		}
	}
	return all
}

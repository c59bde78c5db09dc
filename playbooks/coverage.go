package playbooks

import (
	"cmp"
	"crypto/sha256"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"orch/builtins"
	"orch/engine/api"
)

// Coverage collects which lines of strategies ran: of the functions at the top
// level of modules that a question to a strategy came to. Starlark tells nobody
// what it executes, so that modules are compiled with a call of a hidden
// builtin before each statement. Safe for concurrent use.
type Coverage struct {
	mu    sync.Mutex
	files map[coverKey]*coveredFile
	names map[coverKey]string
}

// coverKey is a module as it was written: folders may hold others of its name.
type coverKey struct {
	id   string
	text [sha256.Size]byte
}

type coveredFile struct {
	lines []string
	stmts []*coveredStmt
}

// coveredStmt is a statement of a function; of an if, for or def only its
// first line or lines.
type coveredStmt struct {
	from, to int32 // lines
	fn       int   // the top-level function it is in
	reached  atomic.Bool
}

// CoveredFile says how much of a module's strategies ran.
type CoveredFile struct {
	File    string        `json:"file"`
	Lines   int           `json:"lines"`
	Reached int           `json:"reached"`
	Percent float64       `json:"percent"`
	Missed  []MissedLines `json:"missed"`
}

// MissedLines are lines that nothing reached.
type MissedLines struct {
	From int      `json:"from"`
	To   int      `json:"to"`
	Text []string `json:"text"`
}

// Found says where the files of a bundle lie, for people: dir ends in a slash
// unless it is empty.
func (c *Coverage) Found(dir string, b *api.Bundle) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range b.GetFiles() {
		if pkg, _ := splitID(f.Path); pkg == "" {
			if c.names == nil {
				c.names = map[coverKey]string{}
			}
			c.names[keyOf(f.Path, f.Content)] = dir + f.Path
		}
	}
}

func keyOf(id string, text []byte) coverKey { return coverKey{id, sha256.Sum256(text)} }

// Files lists what was reached and what wasn't, by file.
func (c *Coverage) Files() []CoveredFile {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := []CoveredFile{}
	for key, f := range c.files {
		if strings.HasSuffix(key.id, "_test.star") {
			continue
		}
		if out := f.report(); out.Lines > 0 {
			out.File = cmp.Or(c.names[key], key.id)
			all = append(all, out)
		}
	}
	slices.SortFunc(all, func(a, b CoveredFile) int { return strings.Compare(a.File, b.File) })
	return all
}

// Percent is the part of all lines that was reached; 100 where there are none.
func Percent(files []CoveredFile) float64 {
	lines, reached := 0, 0
	for _, f := range files {
		lines += f.Lines
		reached += f.Reached
	}
	return percent(reached, lines)
}

func percent(reached, lines int) float64 {
	if lines == 0 {
		return 0
	}
	return 100 * float64(reached) / float64(lines)
}

// report counts the lines of the functions of which anything ran. A line
// counts as reached if all of its statements were.
func (f *coveredFile) report() CoveredFile {
	ran := map[int]bool{}
	for _, s := range f.stmts {
		ran[s.fn] = ran[s.fn] || s.reached.Load()
	}
	lines := map[int]bool{}
	for _, s := range f.stmts {
		for l := int(s.from); ran[s.fn] && l <= int(s.to); l++ {
			if was, known := lines[l]; !known || was {
				lines[l] = s.reached.Load()
			}
		}
	}
	out := CoveredFile{Lines: len(lines), Missed: []MissedLines{}}
	open := false
	for _, l := range slices.Sorted(maps.Keys(lines)) {
		switch {
		case lines[l]:
			out.Reached++
			open = false
		case open: // comments between belong to it
			out.Missed[len(out.Missed)-1].To = l
		default:
			out.Missed = append(out.Missed, MissedLines{From: l, To: l})
			open = true
		}
	}
	for i, m := range out.Missed {
		out.Missed[i].Text = f.lines[m.From-1 : min(m.To, len(f.lines))]
	}
	out.Percent = percent(out.Reached, out.Lines)
	return out
}

// counting marks threads whose statements count: those that ask a strategy,
// once its module is evaluated.
const counting = "orch.counting"

// hit is the hidden builtin: no module can write its name.
const hit = "hit a statement"

// program is a module compiled, and the environment that it runs in.
func (e *evaluation) program(id string, text []byte) (*starlark.Program, starlark.StringDict, error) {
	if e.options.cover != nil {
		return e.options.cover.compile(id, text, id == e.root)
	}
	p, err := compile(e.options.CacheDir, id, text, id == e.root)
	return p, builtins.Predeclared(), err
}

// compile does so with statements that are counted, never from the cache.
func (c *Coverage) compile(id string, text []byte, root bool) (*starlark.Program, starlark.StringDict, error) {
	f, err := fileOptions.Parse(id, text, 0)
	if err != nil {
		return nil, nil, err
	}
	if err := checkParams(f, root); err != nil {
		return nil, nil, err
	}
	counted := c.file(id, text, f)
	known := maps.Clone(builtins.Predeclared())
	known[hit] = starlark.NewBuiltin(hit, func(t *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, _ []starlark.Tuple) (starlark.Value, error) {
		if t.Local(counting) != nil {
			n, err := starlark.AsInt32(args[0])
			if err != nil {
				return nil, err
			}
			counted.stmts[n].reached.Store(true)
		}
		return starlark.None, nil
	})
	p, err := starlark.FileProgram(f, known.Has)
	return p, known, err
}

// file puts the calls into a module's syntax tree. The same module, evaluated
// again, has the same statements.
func (c *Coverage) file(id string, text []byte, f *syntax.File) *coveredFile {
	out := &coveredFile{lines: strings.Split(string(text), "\n")}
	for n, s := range f.Stmts {
		if def, ok := s.(*syntax.DefStmt); ok {
			def.Body = out.body(n, def.Body)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	key := keyOf(id, text)
	if known := c.files[key]; known != nil {
		return known
	}
	if c.files == nil {
		c.files = map[coverKey]*coveredFile{}
	}
	c.files[key] = out
	return out
}

// body is that of a function, whose docstring stays its first statement.
func (f *coveredFile) body(fn int, stmts []syntax.Stmt) []syntax.Stmt {
	if e, ok := stmts[0].(*syntax.ExprStmt); ok {
		if l, ok := e.X.(*syntax.Literal); ok && l.Token == syntax.STRING {
			return append([]syntax.Stmt{e}, f.block(fn, stmts[1:])...)
		}
	}
	return f.block(fn, stmts)
}

func (f *coveredFile) block(fn int, stmts []syntax.Stmt) []syntax.Stmt {
	var all []syntax.Stmt
	for _, s := range stmts {
		from, to := s.Span()
		n := len(f.stmts)
		counted := &coveredStmt{from: from.Line, fn: fn}
		f.stmts = append(f.stmts, counted)
		switch s := s.(type) {
		case *syntax.IfStmt:
			to = syntax.End(s.Cond)
			s.True, s.False = f.block(fn, s.True), f.block(fn, s.False)
		case *syntax.ForStmt:
			to = syntax.End(s.X)
			s.Body = f.block(fn, s.Body)
		case *syntax.WhileStmt:
			to = syntax.End(s.Cond)
			s.Body = f.block(fn, s.Body)
		case *syntax.DefStmt:
			to = s.Rparen
			s.Body = f.body(fn, s.Body)
		}
		counted.to = to.Line
		number := &syntax.Literal{Token: syntax.INT, TokenPos: from, Raw: "0", Value: int64(n)}
		all = append(all, &syntax.ExprStmt{X: &syntax.CallExpr{Fn: &syntax.Ident{NamePos: from, Name: hit}, Lparen: from, Args: []syntax.Expr{number}, Rparen: from}}, s)
	}
	return all
}

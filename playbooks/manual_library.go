package playbooks

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.starlark.net/syntax"
)

// libraryFuncs are the public functions of the library, by name, with the
// file that defines each.
func libraryFuncs() map[string]libraryFunc {
	all := map[string]libraryFunc{}
	files, _ := library.ReadDir("lib") // it is embedded: nothing of it can fail
	for _, f := range files {
		src, _ := library.ReadFile("lib/" + f.Name())
		file, err := fileOptions.Parse(f.Name(), src, 0)
		if err != nil {
			continue // its own tests say so
		}
		for _, stmt := range file.Stmts {
			if def, ok := stmt.(*syntax.DefStmt); ok && !strings.HasPrefix(def.Name.Name, "_") {
				all[def.Name.Name] = libraryFunc{"@orch//" + f.Name(), src, def}
			}
		}
	}
	return all
}

type libraryFunc struct {
	file string
	src  []byte
	def  *syntax.DefStmt
}

// libraryDoc is the manual of one function, or of a file, of the library.
func libraryDoc(name string) (string, bool) {
	funcs := libraryFuncs()
	if f, ok := funcs[name]; ok {
		return f.text(), true
	}
	text := ""
	for _, n := range slices.Sorted(maps.Keys(funcs)) {
		if f := funcs[n]; f.file == name {
			text += f.text() + "\n"
		}
	}
	return strings.TrimSuffix(text, "\n"), text != ""
}

// text is how a function is called, and its docstring.
func (f libraryFunc) text() string {
	lines := strings.Split(string(f.src), "\n")
	body, _ := f.def.Body[0].Span()
	head := strings.TrimSpace(strings.Join(lines[f.def.Def.Line-1:body.Line-1], "\n"))
	doc := ""
	if s, ok := f.def.Body[0].(*syntax.ExprStmt); ok {
		if lit, ok := s.X.(*syntax.Literal); ok {
			doc, _ = lit.Value.(string)
		}
	}
	var out strings.Builder
	fmt.Fprintf(&out, "load(%q, %q)\n%s\n", f.file, f.def.Name.Name, strings.TrimSuffix(strings.TrimPrefix(head, "def "), ":"))
	for line := range strings.Lines(strings.TrimSpace(doc)) {
		out.WriteString("  " + strings.TrimPrefix(line, "    "))
	}
	return strings.TrimRight(out.String(), " \n") + "\n"
}

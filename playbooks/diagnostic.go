package playbooks

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.starlark.net/resolve"
	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"orch/builtins"
)

// Diagnostic is one thing to say about a place in a playbook.
type Diagnostic struct {
	Severity string  `json:"severity"` // error | warning
	File     string  `json:"file,omitempty"`
	Line     int     `json:"line,omitempty"` // from 1; 0: the file as a whole
	Col      int     `json:"col,omitempty"`  // from 1, in characters
	Message  string  `json:"message"`
	Hint     string  `json:"hint,omitempty"`
	Source   string  `json:"source,omitempty"` // the line
	Trace    []Frame `json:"trace,omitempty"`  // outermost call first; only where there is more than one
	Rule     string  `json:"rule,omitempty"`   // of lint
}

// Frame is one call on the way to a Diagnostic.
type Frame struct {
	Function string `json:"function"`
	Pos      string `json:"pos"` // file:line:col
}

// Error is all that is wrong with a playbook, sorted by place, at most
// builtins.MaxProblems.
type Error struct{ Diagnostics []Diagnostic }

// Error implements error: all diagnostics as people read them.
func (e *Error) Error() string {
	parts := make([]string, len(e.Diagnostics))
	for i, d := range e.Diagnostics {
		parts[i] = d.String()
	}
	return strings.Join(parts, "\n")
}

// MarshalJSON implements json.Marshaler.
func (e *Error) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Diagnostics []Diagnostic `json:"diagnostics"`
	}{e.Diagnostics})
}

// Pos is file:line:col, as far as they are known.
func (d Diagnostic) Pos() string {
	switch {
	case d.File == "":
		return ""
	case d.Line == 0:
		return d.File
	}
	return fmt.Sprintf("%s:%d:%d", d.File, d.Line, d.Col)
}

// String shows the place and message, the line with a caret, the hint and
// the trace.
func (d Diagnostic) String() string {
	var b strings.Builder
	if pos := d.Pos(); pos != "" {
		b.WriteString(pos + ": ")
	}
	if d.Severity == "warning" {
		b.WriteString("warning: ")
	}
	b.WriteString(d.Message)
	if d.Source != "" {
		fmt.Fprintf(&b, "\n    %s", d.Source)
		if d.Col > 0 {
			fmt.Fprintf(&b, "\n    %s^", caretIndent(d.Source, d.Col))
		}
	}
	if d.Hint != "" {
		b.WriteString("\n    " + d.Hint)
	}
	if len(d.Trace) > 0 {
		b.WriteString("\n    called from:")
		for _, f := range slices.Backward(d.Trace) {
			fmt.Fprintf(&b, "\n      %s in %s", f.Pos, f.Function)
		}
	}
	return b.String()
}

func caretIndent(line string, col int) string {
	var b strings.Builder
	for i, r := range []rune(line) {
		if i >= col-1 {
			break
		}
		if r != '\t' {
			r = ' '
		}
		b.WriteRune(r)
	}
	return b.String()
}

// sources are the texts that diagnostics point into.
type sources map[string][]byte

// newError completes diagnostics with their lines and sorts them.
func newError(text sources, all []Diagnostic) *Error {
	many := len(all) >= builtins.MaxProblems
	all = finish(text, all)
	if many {
		all = append(all[:min(len(all), builtins.MaxProblems)], Diagnostic{Severity: "error", Message: "too many errors: the run ended here"})
	}
	return &Error{all}
}

func finish(text sources, all []Diagnostic) []Diagnostic {
	lines := map[string][]string{}
	for i := range all {
		d := &all[i]
		if src, ok := text[d.File]; ok && lines[d.File] == nil {
			lines[d.File] = strings.Split(string(src), "\n")
		}
		if l := lines[d.File]; d.Line > 0 && d.Line <= len(l) {
			d.Source = strings.TrimRight(l[d.Line-1], " \r")
			if r := []rune(d.Source); len(r) > 160 {
				d.Source = string(r[:160])
			}
		}
	}
	slices.SortStableFunc(all, func(a, b Diagnostic) int {
		if c := strings.Compare(a.File, b.File); c != 0 {
			return c
		}
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		if a.Col != b.Col {
			return a.Col - b.Col
		}
		return strings.Compare(a.Message, b.Message)
	})
	all = slices.CompactFunc(all, func(a, b Diagnostic) bool { return a.Pos() == b.Pos() && a.Message == b.Message && a.Line > 0 })
	return all
}

var didYouMean = regexp.MustCompile(` \(did you mean ([^?)]+)\??\)$`)

// diagnosticsOf takes apart what parser, resolver and interpreter return.
func diagnosticsOf(err error) []Diagnostic {
	var list resolve.ErrorList
	var syntaxErr syntax.Error
	var eval *starlark.EvalError
	switch {
	case errors.As(err, &list):
		var all []Diagnostic
		for _, e := range list {
			all = append(all, at(e.Pos, e.Msg))
		}
		return all
	case errors.As(err, &syntaxErr):
		return []Diagnostic{at(syntaxErr.Pos, syntaxErr.Msg)}
	case errors.As(err, &eval):
		return []Diagnostic{ofEval(eval)}
	}
	return []Diagnostic{{Severity: "error", Message: err.Error()}}
}

func at(pos syntax.Position, message string) Diagnostic {
	d := Diagnostic{Severity: "error", Line: int(pos.Line), Col: int(pos.Col), Message: message}
	if pos.Line > 0 {
		d.File = pos.Filename()
	}
	if m := didYouMean.FindStringSubmatch(message); m != nil {
		d.Message, d.Hint = strings.TrimSuffix(message, m[0]), fmt.Sprintf("did you mean %q?", m[1])
	}
	return d
}

func ofEval(e *starlark.EvalError) Diagnostic {
	message := strings.TrimPrefix(e.Msg, "Starlark computation cancelled: ")
	stack := slices.Clone(e.CallStack)
	for len(stack) > 0 && stack.At(0).Pos.Line == 0 { // builtins
		stack.Pop()
	}
	if len(stack) == 0 {
		return Diagnostic{Severity: "error", Message: message}
	}
	d := at(stack.At(0).Pos, message)
	d.Trace = trace(stack[:len(stack)-1])
	return d
}

func trace(stack starlark.CallStack) []Frame {
	var frames []Frame
	for _, f := range stack {
		if f.Pos.Line > 0 {
			name := f.Name
			if name == "<toplevel>" {
				name = "the playbook"
			}
			frames = append(frames, Frame{name, f.Pos.String()})
		}
	}
	return frames
}

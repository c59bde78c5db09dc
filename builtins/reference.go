package builtins

import (
	"fmt"
	"strconv"
	"strings"
)

// Reference is the manual of one builtin, or of a module such as "health";
// with name "" the list of all. ok is false where there is none of that name.
func Reference(name string) (text string, ok bool) {
	var b strings.Builder
	if name == "" {
		width := 0
		for _, f := range Funcs {
			width = max(width, len(f.Name))
		}
		for _, f := range Funcs {
			fmt.Fprintf(&b, "%-*s  %s\n", width, f.Name, f.summary())
		}
		b.WriteString("\nand json, math, set as in Starlark, print, and time (durations only: a playbook knows no clock).\n`orch doc NAME` tells more; sizes read \"256Mi\", durations \"10s\"; None means the default everywhere.\n")
		return b.String(), true
	}
	for _, f := range Funcs {
		if f.Name == name || strings.HasPrefix(f.Name, name+".") {
			if ok {
				b.WriteString("\n")
			}
			f.manual(&b)
			ok = true
		}
	}
	return b.String(), ok
}

// Names lists the builtins that have a manual.
func Names() []string {
	names := make([]string, len(Funcs))
	for i, f := range Funcs {
		names[i] = f.Name
	}
	return names
}

func (f *Func) summary() string {
	s, _, _ := strings.Cut(f.Doc, "\n")
	return s
}

func (f *Func) manual(b *strings.Builder) {
	fmt.Fprintf(b, "%s -> %s\n\n%s\n", f.Signature(), f.Returns, f.Doc)
	if len(f.Params) > 0 {
		width := 0
		for _, p := range f.Params {
			width = max(width, len(p.Name))
		}
		b.WriteString("\n")
		for _, p := range f.Params {
			fmt.Fprintf(b, "  %-*s  %s\n", width, p.Name, p.kindText())
			fmt.Fprintf(b, "  %-*s  %s\n", width, "", p.Doc)
		}
	}
	if f.Rest != "" {
		fmt.Fprintf(b, "  **  %s\n", f.Rest)
	}
	if f.Example != "" {
		b.WriteString("\nExample:\n")
		for line := range strings.Lines(f.Example) {
			b.WriteString("    " + line)
		}
		b.WriteString("\n")
	}
}

func (p Param) kindText() string {
	text := p.Kind.Name
	if len(p.Kind.Choices) > 0 {
		quoted := make([]string, len(p.Kind.Choices))
		for i, c := range p.Kind.Choices {
			quoted[i] = strconv.Quote(c)
		}
		text = strings.Join(quoted, " | ")
	}
	switch p.Default {
	case "":
		return text + ", required"
	case "None", "[]", "{}":
		return text
	}
	return text + ", default " + p.Default
}

// Signature is the function as it is called: service(name, *, image = None, ...).
func (f *Func) Signature() string {
	if f.attribute {
		return f.Name
	}
	parts := make([]string, 0, len(f.Params)+2)
	for i, p := range f.Params {
		if i > 0 && f.Params[i-1].Position && !p.Position {
			parts = append(parts, "*")
		}
		part := p.Name
		if p.Default != "" {
			part += " = " + p.Default
		}
		parts = append(parts, part)
	}
	if f.Rest != "" {
		parts = append(parts, "**")
	}
	one := f.Name + "(" + strings.Join(parts, ", ") + ")"
	if len(one) <= 100 {
		return one
	}
	return f.Name + "(\n    " + strings.Join(parts, ",\n    ") + ",\n)"
}

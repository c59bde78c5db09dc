package playtest

import (
	"fmt"
	"strings"
)

// Doc is the manual of t ("t") or of one of its functions ("t.simulate"); ok
// is false where it has none of that name.
func Doc(name string) (text string, ok bool) {
	var b strings.Builder
	if name == "t" {
		b.WriteString(about)
		width := 0
		for _, m := range methods {
			width = max(width, len(m.name))
		}
		for _, m := range methods {
			first, _, _ := strings.Cut(m.doc, "\n")
			fmt.Fprintf(&b, "%-*s  %s\n", width, m.name, first)
		}
		return b.String(), true
	}
	for _, m := range methods {
		if m.name == name {
			m.manual(&b)
			return b.String(), true
		}
	}
	return "", false
}

// Names lists what has a manual.
func Names() []string {
	names := []string{"t"}
	for _, m := range methods {
		names = append(names, m.name)
	}
	return names
}

const about = `t is what a test works with: def test_NAME(t) in a file *_test.star, run by ` + "`orch test`" + `.
It ends at its first failure. ` + "`orch doc t.NAME`" + ` tells more.

`

func (m *method) manual(b *strings.Builder) {
	var parts []string
	width := 0
	for i, p := range m.params {
		if i > 0 && m.params[i-1].position && !p.position {
			parts = append(parts, "*")
		}
		part := p.name
		if p.text != "" {
			part += " = " + p.text
		}
		parts = append(parts, part)
		width = max(width, len(p.name))
	}
	one := m.name + "(" + strings.Join(parts, ", ") + ")"
	if len(one) > 100 {
		one = m.name + "(\n    " + strings.Join(parts, ",\n    ") + ",\n)"
	}
	fmt.Fprintf(b, "%s -> %s\n\n%s\n\n", one, m.returns, m.doc)
	for _, p := range m.params {
		for i, line := range strings.Split(p.doc, "\n") {
			name := p.name
			if i > 0 {
				name = ""
			}
			fmt.Fprintf(b, "  %-*s  %s\n", width, name, line)
		}
	}
	b.WriteString("\nExample:\n")
	for line := range strings.Lines(m.example) {
		b.WriteString("    " + line)
	}
	b.WriteString("\n")
}

package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// painter paints a block of lines over the one before, on a terminal.
type painter struct {
	out   io.Writer
	width int // of the terminal; 0: it is none
	lines int // painted last
}

func newPainter(out io.Writer) *painter {
	p := &painter{out: out}
	if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.width, _, _ = term.GetSize(int(f.Fd()))
	}
	return p
}

// block replaces the block painted last; lines that are too long are cut.
func (p *painter) block(text string) {
	var out strings.Builder
	if p.lines > 0 {
		fmt.Fprintf(&out, "\x1b[%dA\x1b[J", p.lines)
	}
	p.lines = 0
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if runes := []rune(line); len(runes) >= p.width {
			line = string(runes[:p.width-1]) + "…"
		}
		out.WriteString(line + "\n")
		p.lines++
	}
	fmt.Fprint(p.out, out.String())
}

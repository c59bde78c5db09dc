package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"golang.org/x/term"

	"orch/engine/bootstrap"
)

// bootstrapProgress shows how hosts come along: a line a host that is painted
// over on a terminal, else a line an event, or JSON.
type bootstrapProgress struct {
	out   io.Writer
	json  bool
	width int // of the terminal; 0: none

	mu    sync.Mutex
	order []string
	lines map[string]string
	drawn int
	began time.Time
}

func newBootstrapProgress(out io.Writer, asJSON bool, hosts []*bootstrap.Host) *bootstrapProgress {
	p := &bootstrapProgress{out: out, json: asJSON, lines: map[string]string{}, began: time.Now()}
	if f, ok := out.(*os.File); ok && !asJSON && term.IsTerminal(int(f.Fd())) {
		p.width, _, _ = term.GetSize(int(f.Fd()))
	}
	return p
}

func (p *bootstrapProgress) write(v any) {
	b, _ := json.Marshal(v)
	fmt.Fprintln(p.out, string(b))
}

func (p *bootstrapProgress) event(e bootstrap.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	line := strings.TrimSpace(e.Text)
	if line == "" {
		line = strings.TrimSpace(e.Op)
	}
	switch {
	case p.json:
		p.write(e)
	case e.Host == "":
		p.erase()
		fmt.Fprintln(p.out, line)
		p.draw()
	case e.State == "warning":
		p.erase()
		fmt.Fprintf(p.out, "%s: warning: %s\n", e.Host, line)
		p.draw()
	case p.width == 0:
		if e.Op == "look" {
			return // what is found comes as a table
		}
		fmt.Fprintf(p.out, "%s: %s%s\n", e.Host, map[string]string{"failed": "FAILED: ", "done": "done: "}[e.State], line)
	default:
		if e.Op == "look" && e.State == "done" { // from here on it may have another name
			p.order = slices.DeleteFunc(p.order, func(h string) bool { return h == e.Host })
			delete(p.lines, e.Host)
			p.erase()
			p.draw()
			return
		}
		mark := map[string]string{"begun": "·", "done": "✓", "failed": "✗"}[e.State]
		if e.Op == "look" && e.State != "failed" {
			line = "looking at it"
		}
		if _, known := p.lines[e.Host]; !known {
			p.order = append(p.order, e.Host)
		}
		p.lines[e.Host] = mark + " " + e.Host + "  " + strings.ReplaceAll(line, "\n", " ")
		p.erase()
		p.draw()
	}
}

func (p *bootstrapProgress) erase() {
	if p.drawn > 0 {
		fmt.Fprintf(p.out, "\x1b[%dA\x1b[J", p.drawn)
	}
	p.drawn = 0
}

func (p *bootstrapProgress) draw() {
	for _, h := range p.order {
		line := p.lines[h]
		if runes := []rune(line); len(runes) >= p.width {
			line = string(runes[:p.width-1]) + "…"
		}
		fmt.Fprintln(p.out, line)
		p.drawn++
	}
}

// stop leaves what is drawn as it is.
func (p *bootstrapProgress) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drawn = 0
}

// ask asks for a secret on the terminal.
func (p *bootstrapProgress) ask(prompt string) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprint(os.Stderr, prompt)
	b, err := term.ReadPassword(int(os.Stdin.Fd()))
	fmt.Fprintln(os.Stderr)
	p.drawn = 0
	return string(b), err
}

// findings is the table of what preflight found; hosts of which the same is
// said share a row.
func (p *bootstrapProgress) findings(all []bootstrap.Finding) {
	p.mu.Lock()
	defer p.mu.Unlock()
	type saying struct{ level, text, fix string }
	var order []saying
	who := map[saying][]string{}
	for _, f := range all {
		s := saying{map[bool]string{true: "error", false: "warning"}[f.Error], f.Text, f.Fix}
		if p.json {
			p.write(map[string]any{"host": f.Host.String(), "state": s.level, "op": "preflight", "text": s.text, "fix": s.fix})
			continue
		}
		if who[s] == nil {
			order = append(order, s)
		}
		who[s] = append(who[s], f.Host.String())
	}
	if len(order) == 0 {
		return
	}
	p.erase()
	p.order, p.lines = nil, map[string]string{}
	w := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "HOST\t\tFINDING\tWAY OUT")
	for _, s := range order {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", strings.Join(who[s], ", "), s.level, strings.ReplaceAll(s.text, "\n", " "), s.fix)
	}
	w.Flush()
}

func (p *bootstrapProgress) plans(all []bootstrap.HostPlan) {
	for _, h := range all {
		switch {
		case p.json:
			p.write(h)
			continue
		case len(h.Ops) == 0:
			fmt.Fprintf(p.out, "%s (%s): nothing to do\n", h.Host, h.Role)
			continue
		}
		fmt.Fprintf(p.out, "%s (%s):\n", h.Host, h.Role)
		for _, op := range h.Ops {
			fmt.Fprintf(p.out, "  %s\n", op.Text)
		}
	}
}

func (p *bootstrapProgress) summary(r *bootstrap.Result, reset, dry bool) {
	switch {
	case p.json:
		p.write(map[string]any{"state": "end", "cluster": r.Cluster, "changed": r.Changed, "failed": len(r.Failed)})
	case dry:
		fmt.Fprintln(p.out, "Nothing was changed (--dry-run).")
	case reset:
		fmt.Fprintf(p.out, "%d hosts reset after %s.\n", r.Changed, time.Since(p.began).Round(100*time.Millisecond))
	case r.Changed == 0 && len(r.Failed) == 0:
		fmt.Fprintf(p.out, "Nothing to do: all hosts are nodes of cluster %q as they should be.\n", r.Cluster)
	default:
		fmt.Fprintf(p.out, "Cluster %q: %d hosts changed after %s. `orch node ls` lists them.\n", r.Cluster, r.Changed, time.Since(p.began).Round(100*time.Millisecond))
	}
}

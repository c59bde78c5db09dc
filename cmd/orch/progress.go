package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"orch/engine/api"
)

// progress shows how a stack comes along: on a terminal a block of lines that
// is painted over, elsewhere a line a change, or JSON events.
type progress struct {
	*painter
	json  bool
	said  map[string]saying
	began time.Time
}

// saying is the last line about a service; reasons alone that change quickly
// are not worth a line each.
type saying struct {
	state, line string
	at          time.Time
}

const quickly = 2 * time.Second

func newProgress(out io.Writer, output string) *progress {
	return &progress{painter: newPainter(out), json: output == "json", said: map[string]saying{}, began: time.Now()}
}

func (p *progress) event(kind string, m proto.Message) {
	b, err := protojson.Marshal(m)
	if err != nil {
		b, _ = json.Marshal(err.Error())
	}
	line, _ := json.Marshal(struct {
		Event string          `json:"event"`
		Time  time.Time       `json:"time"`
		Data  json.RawMessage `json:"data"`
	}{kind, time.Now().UTC(), b})
	fmt.Fprintln(p.out, string(line))
}

// release says what was committed.
func (p *progress) release(a *api.ApplyResponse) {
	switch {
	case p.json:
		p.event("release", a)
	case !a.Changed:
		fmt.Fprintf(p.out, "Stack %s: release %d is unchanged.\n", a.Stack, a.Release)
	default:
		fmt.Fprintf(p.out, "Stack %s: release %d\n", a.Stack, a.Release)
	}
	if !p.json {
		for _, w := range a.Warnings {
			fmt.Fprintln(p.out, w)
		}
	}
}

func (p *progress) status(s *api.StackStatus) {
	switch {
	case p.json:
		p.event("status", s)
	case p.width > 0:
		p.paint(s)
	default:
		p.say(s)
	}
}

// again shows a status that hasn't changed: lines that were held back because
// they changed quickly, and times.
func (p *progress) again(s *api.StackStatus) {
	if !p.json {
		p.status(s)
	}
}

// goesBack says that a release is being taken back.
func goesBack(s *api.StackStatus) string {
	if s.Phase != "rollback" || s.Outcome != "" {
		return ""
	}
	return fmt.Sprintf("Release %d goes back: %s", s.Release, s.Reason)
}

// paint replaces the block of lines.
func (p *progress) paint(s *api.StackStatus) {
	var text strings.Builder
	if line := goesBack(s); line != "" {
		text.WriteString(line + "\n")
	}
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	for _, svc := range s.Services {
		fmt.Fprintf(w, "  %s %s\t%s\t%d/%d\t%s\n", mark(svc), svc.Name, svc.State, svc.Ready, svc.Want, why(svc))
	}
	w.Flush()
	p.block(text.String())
}

func mark(s *api.ServiceStatus) string {
	switch {
	case s.Failed:
		return "✗"
	case s.Converged:
		return "✓"
	}
	return "·"
}

func why(s *api.ServiceStatus) string {
	if s.Converged && s.State != "scheduled" {
		return s.Warning
	}
	return s.Reason
}

// say prints the services whose line changed.
func (p *progress) say(s *api.StackStatus) {
	if line := goesBack(s); line != "" && p.said[""].line != line {
		p.said[""] = saying{line: line}
		fmt.Fprintln(p.out, line)
	}
	for _, svc := range s.Services {
		now, was := time.Now(), p.said[svc.Name]
		is := saying{fmt.Sprintf("%s: %s %d/%d", svc.Name, svc.State, svc.Ready, svc.Want), "", now}
		is.line = is.state
		if w := why(svc); w != "" {
			is.line += ": " + w
		}
		if is.line == was.line || is.state == was.state && now.Sub(was.at) < quickly {
			continue
		}
		p.said[svc.Name] = is
		fmt.Fprintln(p.out, is.line)
	}
}

// end says how it came out, and where published ports answer.
func (p *progress) end(s *api.StackStatus, converged bool) {
	if p.json {
		p.event(map[bool]string{true: "converged", false: "failed"}[converged], s)
		return
	}
	if !converged {
		return
	}
	fmt.Fprintf(p.out, "Converged after %s.\n", time.Since(p.began).Round(10*time.Millisecond))
	for _, svc := range s.Services {
		for _, port := range svc.Ports {
			host := port.HostIp
			if host == "" || host == "0.0.0.0" {
				host = "127.0.0.1"
			}
			fmt.Fprintf(p.out, "  %s: http://%s:%d\n", svc.Name, host, port.Publish)
		}
	}
}

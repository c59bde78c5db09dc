package spec

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"orch/engine/api"
)

// Constraint is a parsed placement constraint: Docker's `key == value` and
// `key != value`, and also `key in (a, b)`, `key >= n`, and `or` between
// several. A constraint holds if one of its terms does.
type Constraint struct {
	Text  string
	terms []term
}

type term struct {
	key, op string
	values  []string
}

// ParseConstraint reads one constraint; the error says what was expected.
func ParseConstraint(text string) (Constraint, error) {
	c := Constraint{Text: text}
	for _, part := range strings.Split(text, " or ") {
		t, err := parseTerm(strings.TrimSpace(part))
		if err != nil {
			return c, fmt.Errorf("constraint %q: %w", text, err)
		}
		c.terms = append(c.terms, t)
	}
	return c, nil
}

func parseTerm(s string) (term, error) {
	for _, op := range []string{"==", "!=", ">=", " in "} {
		key, value, found := strings.Cut(s, op)
		if !found {
			continue
		}
		t := term{key: strings.TrimSpace(key), op: strings.TrimSpace(op)}
		value = strings.TrimSpace(value)
		if !validKey(t.key) {
			return t, fmt.Errorf("%q is none of node.id, node.hostname, node.role, node.os, node.arch, node.labels.NAME", t.key)
		}
		switch t.op {
		case "in":
			inner, ok := strings.CutPrefix(value, "(")
			inner, closed := strings.CutSuffix(inner, ")")
			if !ok || !closed {
				return t, fmt.Errorf("`in` wants a list in parentheses, such as (a, b)")
			}
			for _, v := range strings.Split(inner, ",") {
				if v = strings.TrimSpace(v); v == "" {
					return t, fmt.Errorf("`in` wants values between its commas")
				}
				t.values = append(t.values, v)
			}
		case ">=":
			if _, err := strconv.ParseFloat(value, 64); err != nil {
				return t, fmt.Errorf("`>=` wants a number, not %q", value)
			}
			fallthrough
		default:
			if value == "" {
				return t, fmt.Errorf("there is no value after %s", t.op)
			}
			t.values = []string{value}
		}
		return t, nil
	}
	return term{}, fmt.Errorf("expected `key == value`, `key != value`, `key >= number` or `key in (a, b)`")
}

func validKey(k string) bool {
	switch k {
	case "node.id", "node.hostname", "node.role", "node.os", "node.arch":
		return true
	}
	label, ok := strings.CutPrefix(k, "node.labels.")
	return ok && label != ""
}

// Holds says whether n satisfies the constraint.
func (c Constraint) Holds(n *api.Node) bool {
	return slices.ContainsFunc(c.terms, func(t term) bool { return t.holds(n) })
}

func (t term) holds(n *api.Node) bool {
	value := NodeValue(n, t.key)
	switch t.op {
	case "!=":
		return !strings.EqualFold(value, t.values[0])
	case ">=":
		have, err := strconv.ParseFloat(value, 64)
		want, _ := strconv.ParseFloat(t.values[0], 64)
		return err == nil && have >= want
	}
	return slices.ContainsFunc(t.values, func(v string) bool { return strings.EqualFold(v, value) })
}

// Fits says whether all of a service's constraints allow n.
func Fits(s *api.ServiceSpec, n *api.Node) bool { return Fails(s, n) == "" }

// Fails is the first of a service's constraints that doesn't allow n; "" if
// all do.
func Fails(s *api.ServiceSpec, n *api.Node) string {
	for _, text := range s.GetPlacement().GetConstraints() {
		if c, err := ParseConstraint(text); err != nil || !c.Holds(n) {
			return text
		}
	}
	return ""
}

// NodeValue is what a key of a constraint or a spread means on n; "" if
// the node has no such label.
func NodeValue(n *api.Node, key string) string {
	switch key {
	case "node.id":
		return n.Id
	case "node.hostname":
		return n.Name
	case "node.role":
		return n.Role
	case "node.os":
		return n.GetFacts().GetOs()
	case "node.arch":
		return n.GetFacts().GetArch()
	}
	return n.Labels[strings.TrimPrefix(key, "node.labels.")]
}

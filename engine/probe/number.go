package probe

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"orch/engine/api"
)

// series is what a query says of one thing.
type series struct {
	name  string // such as `up{job="web"}`; may be empty
	value float64
	wrong string // why there is no number, if there is none
}

// errBoundless is of a probe for which any number would do.
var errBoundless = errors.New("it says neither below nor above what a number is good")

func bounded(p *api.Probe) bool { return p.Below != nil || p.Above != nil }

// bounds says what a number must be: "above 1 and below 2".
func bounds(p *api.Probe) string {
	var all []string
	if p.Above != nil {
		all = append(all, fmt.Sprintf("above %v", *p.Above))
	}
	if p.Below != nil {
		all = append(all, fmt.Sprintf("below %v", *p.Below))
	}
	return strings.Join(all, " and ")
}

// good says that v is strictly within the bounds; NaN never is.
func good(p *api.Probe, v float64) bool {
	return !math.IsNaN(v) && (p.Below == nil || v < *p.Below) && (p.Above == nil || v > *p.Above)
}

// judge is good if there are numbers and every one is.
func judge(p *api.Probe, all []series) (string, error) {
	query := oneLine(p.Query, maxQuote)
	if len(all) == 0 {
		return "", fmt.Errorf("%s: the answer is empty", query)
	}
	var first *series // of those that are bad
	bad := 0
	for i, s := range all {
		if s.wrong == "" && good(p, s.value) {
			continue
		}
		if bad++; first == nil {
			first = &all[i]
		}
	}
	switch {
	case first == nil && len(all) == 1:
		return fmt.Sprintf("%s = %v, %s", query, all[0].value, bounds(p)), nil
	case first == nil:
		return fmt.Sprintf("%s: all %d series are %s", query, len(all), bounds(p)), nil
	}
	is := fmt.Sprintf("= %v", first.value)
	if first.wrong != "" {
		is = first.wrong
	}
	text := fmt.Sprintf("%s %s, want it %s", query, is, bounds(p))
	if len(all) > 1 {
		text = fmt.Sprintf("%s: %d of %d series are not %s: %s %s", query, bad, len(all), bounds(p), oneLine(first.name, maxQuote), is)
	}
	return "", errors.New(text)
}

// labelled is a series' name as its database writes it.
func labelled(name string, labels map[string]string) string {
	var all []string
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		all = append(all, fmt.Sprintf("%s=%q", k, labels[k]))
	}
	return name + "{" + strings.Join(all, ",") + "}"
}

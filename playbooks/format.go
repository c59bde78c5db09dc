package playbooks

import (
	"fmt"

	"github.com/bazelbuild/buildtools/build"
)

// Format returns a playbook's source as `orch fmt` writes it, the style of
// buildifier. name is for errors, which are *Error; formatting twice changes
// nothing more.
func Format(name string, src []byte) ([]byte, error) {
	if _, err := fileOptions.Parse(name, src, 0); err != nil {
		return nil, newError(sources{name: src}, diagnosticsOf(err))
	}
	out := src
	// The formatter needs a second look at some comments.
	for range 3 {
		f, err := build.ParseDefault(name, out)
		if err != nil {
			return nil, fmt.Errorf("cannot format: %w", err)
		}
		before := out
		out = build.Format(f)
		if string(out) == string(before) {
			break
		}
	}
	if _, err := fileOptions.Parse(name, out, 0); err != nil {
		return nil, fmt.Errorf("cannot format %s: the result would be broken: %w", name, err)
	}
	return out, nil
}

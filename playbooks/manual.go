package playbooks

import (
	"fmt"
	"maps"
	"slices"

	"orch/builtins"
)

// Doc is the manual of a builtin ("service", "health.http", "health"), or
// with name "" the list of them; also of what the library's files define
// ("canary", "@orch//rollout.star").
func Doc(name string) (string, error) {
	text, ok := builtins.Reference(name)
	if !ok {
		if text, ok := libraryDoc(name); ok {
			return text, nil
		}
		err := fmt.Errorf("there is no builtin %q", name)
		names := slices.Concat(builtins.Names(), slices.Sorted(maps.Keys(libraryFuncs())))
		if hint := builtins.Suggest(name, names); hint != "" {
			err = fmt.Errorf("%w; %s", err, hint)
		}
		return "", err
	}
	return text, nil
}

// Stubs is a Python stub file of the builtins, for editors.
func Stubs() string { return builtins.Stubs() }

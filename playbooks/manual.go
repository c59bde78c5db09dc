package playbooks

import (
	"fmt"

	"orch/builtins"
)

// Doc is the manual of a builtin ("service", "health.http", "health"), or
// with name "" the list of them.
func Doc(name string) (string, error) {
	text, ok := builtins.Reference(name)
	if !ok {
		err := fmt.Errorf("there is no builtin %q", name)
		if hint := builtins.Suggest(name, builtins.Names()); hint != "" {
			err = fmt.Errorf("%w; %s", err, hint)
		}
		return "", err
	}
	return text, nil
}

// Stubs is a Python stub file of the builtins, for editors.
func Stubs() string { return builtins.Stubs() }

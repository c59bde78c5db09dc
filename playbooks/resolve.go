package playbooks

import (
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// A module's id is its name in bundles, positions and errors: "dir/x.star"
// below the root, "@name//dir/x.star" in a package.

// splitID takes an id apart; pkg is "" below the root.
func splitID(id string) (pkg, file string) {
	if rest, ok := strings.CutPrefix(id, "@"); ok {
		if pkg, file, ok := strings.Cut(rest, "//"); ok {
			return pkg, file
		}
	}
	return "", id
}

func joinID(pkg, file string) string {
	if pkg == "" {
		return file
	}
	return "@" + pkg + "//" + file
}

// cutStrategy takes "module-id:function" apart.
func cutStrategy(s string) (id, function string, ok bool) {
	i := strings.LastIndexByte(s, ':')
	if i <= 0 || i == len(s)-1 {
		return "", "", false
	}
	return s[:i], s[i+1:], true
}

// resolveLoad says which module load(ref) means in module from.
func resolveLoad(from, ref string) (string, error) {
	if !strings.HasPrefix(ref, "./") && !strings.HasPrefix(ref, "../") && !strings.HasPrefix(ref, "//") && !strings.HasPrefix(ref, "@") {
		return "", fmt.Errorf(`cannot load %q: write "./x.star" (from this file), "//x.star" (from the root), "@orch//x.star" (the library) or "@name//x.star" (a package)`, ref)
	}
	if !strings.HasSuffix(ref, ".star") {
		return "", fmt.Errorf("cannot load %q: a module's name ends in .star", ref)
	}
	id, err := refer(from, ref)
	if err != nil {
		return "", fmt.Errorf("cannot load %q: %w", ref, err)
	}
	return id, nil
}

// refer turns a reference into an id; it never leaves from's package but
// for "@name//".
func refer(from, ref string) (string, error) {
	pkg, file := splitID(from)
	switch {
	case strings.HasPrefix(ref, "@"):
		p, rest, ok := strings.Cut(ref[1:], "//")
		if !ok || !validPackage(p) {
			return "", fmt.Errorf(`a package's files are written "@name//path"`)
		}
		pkg, file = p, rest
	case strings.HasPrefix(ref, "//"):
		file = ref[2:]
	case strings.HasPrefix(ref, "/"):
		return "", fmt.Errorf(`absolute paths are not part of a bundle; "//path" is a path from the root`)
	default:
		file = path.Join(path.Dir(file), ref)
	}
	if file == ".." || strings.HasPrefix(file, "../") {
		return "", fmt.Errorf("it is outside the root, the folder of orch.mod.star or else of the playbook")
	}
	if !fs.ValidPath(file) || file == "." || strings.ContainsAny(file, "\\\x00:") {
		return "", fmt.Errorf("not a path to a file")
	}
	return joinID(pkg, file), nil
}

func validPackage(name string) bool {
	if name == "" || len(name) > 63 {
		return false
	}
	for i, r := range name {
		letter := 'a' <= r && r <= 'z' || '0' <= r && r <= '9'
		if !letter && (i == 0 || !strings.ContainsRune("-_.", r)) {
			return false
		}
	}
	return true
}
